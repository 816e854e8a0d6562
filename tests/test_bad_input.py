"""Bad input gives one clear message, exit code 2, no traceback, and nothing half-written."""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import quantlab as ql
from tests.models import Net, write
from tests.runs import (
    COMMAND,
    FAST,
    SAMPLES,
    configured,
    left_behind,
    network,
    quantlab,
    samples,
    workspace,
)

Spoil = Callable[[Path], object]


def arrays(folder: Path, name: str = "calib", **changed: object) -> None:
    """Write samples, some arrays changed or, if None, left out."""
    kept = dict(np.load(folder / f"{name}.npz")) | changed
    np.savez(folder / f"{name}.npz", **{k: v for k, v in kept.items() if v is not None})


def with_value(value: float, sample: int) -> np.ndarray:
    x = samples(seed=1)
    x[sample, 1, 2, 3] = value
    return x


def damaged(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def model(folder: Path, changes: Callable[[onnx.ModelProto], object]) -> None:
    found = network()
    changes(found)
    write(found, folder / "model.onnx")


def old_opset(found: onnx.ModelProto) -> None:
    found.opset_import[0].version = 7


def unknown_operator(found: onnx.ModelProto) -> None:
    found.graph.node[0].op_type = "Convolve"


def foreign_operator(found: onnx.ModelProto) -> None:
    found.graph.node[0].domain = "com.example"
    found.opset_import.append(helper.make_opsetid("com.example", 1))


def quantized(folder: Path) -> None:
    config = configured(folder, FAST)
    ql.calibrate(config)
    ql.build(config)
    shutil.move(folder / "run/int8.onnx", folder / "model.onnx")
    shutil.rmtree(folder / "run")


def nothing_to_quantize(folder: Path) -> None:
    net = Net()
    write(net.finish(net.relu(net.input(shape=("N", 3, 8, 8)))), folder / "model.onnx")


def images(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8)).save(folder / "images" / f"{number}.png")
    damaged(folder / "images" / "2.png", 0.5)
    configured(folder, {**FAST, "calibration.dataset": {"kind": "image_folder", "path": "images"}})


def square_root(folder: Path) -> None:
    write(network(first="Sqrt"), folder / "model.onnx")
    x = np.ones((SAMPLES, 3, 8, 8), np.float32)
    x[13] = -1
    arrays(folder, x=x)


def exponential(folder: Path) -> None:
    write(network(first="Exp"), folder / "model.onnx")
    arrays(folder, x=with_value(1000.0, 9))


def record(folder: Path, text: str, name: str = "run.json") -> None:
    (folder / "run").mkdir()
    (folder / "run" / name).write_text(text)


def text(folder: Path, old: str, new: str) -> None:
    path = folder / "job.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def config(changes: dict[str, object]) -> Spoil:
    return lambda folder: configured(folder, {**FAST, **changes})


CASES: dict[str, tuple[Spoil, str]] = {
    "no model": (lambda f: (f / "model.onnx").unlink(), r"model\.onnx: no such file"),
    "model is text": (
        lambda f: (f / "model.onnx").write_text("hello"),
        r"model\.onnx: not an ONNX",
    ),
    "model is truncated": (
        lambda f: damaged(f / "model.onnx", 0.5),
        r"model\.onnx: not an ONNX.*truncated",
    ),
    "old opset": (lambda f: model(f, old_opset), r"model\.onnx: opset 7 cannot be read, 9 to \d+"),
    "unknown operator": (lambda f: model(f, unknown_operator), r"model\.onnx.*Convolve"),
    "foreign operator": (lambda f: model(f, foreign_operator), r"model\.onnx.*com\.example"),
    "quantized already": (quantized, "quantized already"),
    "nothing to quantize": (nothing_to_quantize, "no quantizable layer"),
    "no data": (lambda f: (f / "calib.npz").unlink(), r"cannot read .*calib\.npz"),
    "data is text": (lambda f: (f / "calib.npz").write_text("x"), r"cannot read .*calib\.npz"),
    "data is truncated": (lambda f: damaged(f / "calib.npz", 0.7), r"calib\.npz"),
    "input without array": (
        lambda f: arrays(f, x=None, image=samples(seed=1)),
        r"calib\.npz holds one array, 'image', and the model has one input, 'x'",
    ),
    "wrong dtype": (
        lambda f: arrays(f, x=samples(seed=1).astype(np.float64)),
        r"input x float32.*expected float32, got float64 in calib\.npz",
    ),
    "wrong shape": (
        lambda f: arrays(f, x=np.zeros((SAMPLES, 3, 9, 8), np.float32)),
        r"input x .*expected samples of shape \(3, 8, 8\), got \(3, 9, 8\) in calib\.npz",
    ),
    "counts differ": (
        lambda f: arrays(f, labels=np.zeros(3, np.int64)),
        rf"different numbers of samples: x {SAMPLES}, labels 3",
    ),
    "unreadable image": (images, r"2\.png.*'on_error: skip'"),
    "label out of range": (
        lambda f: arrays(f, "eval", labels=np.full(SAMPLES, 8)),
        "is 8, but the output scores 8 classes: expected 0 to 7",
    ),
    "no labels": (
        lambda f: arrays(f, "eval", labels=None),
        "'top1' compares with labels, and the evaluation dataset has none",
    ),
    "fewer samples than asked": (
        config({"calibration.samples": SAMPLES + 1}),
        rf"{SAMPLES + 1}.*{SAMPLES}|{SAMPLES}.*{SAMPLES + 1}",
    ),
    "NaN in data": (
        lambda f: arrays(f, x=with_value(np.nan, 13)),
        r"input 'x', sample 13 \(calib\.npz\[13\]\), batch 1: 1 of 192 values are NaN",
    ),
    "infinity in data": (
        lambda f: arrays(f, "eval", x=with_value(-np.inf, 5)),
        r"input 'x', sample 5 \(eval\.npz\[5\]\), batch 0: .*-inf",
    ),
    "NaN in activations": (
        square_root,
        r"tensor 'first_out': 192 elements are NaN, first in sample 13 \(batch 1\)",
    ),
    "infinity in activations": (
        exponential,
        r"tensor 'first_out': 1 elements are infinite, first in sample 9 \(batch 1\)",
    ),
    "config is missing": (lambda f: (f / "job.yaml").unlink(), r"cannot read config .*job\.yaml"),
    "config is not YAML": (lambda f: (f / "job.yaml").write_text("a: [1"), "not valid YAML"),
    "misspelt key": (
        lambda f: text(f, "calibration:", "calibraton:"),
        r"job\.yaml:\d+: unknown key 'calibraton'; did you mean 'calibration'",
    ),
    "misspelt parameter": (
        config({"engines.thread": 2}),
        r"job\.yaml:\d+: engines: backend 'onnxruntime' has no parameter 'thread'; did you mean",
    ),
    "wrong value": (config({"calibration.batch": "many"}), r"job\.yaml:\d+: calibration\.batch"),
    "NaN as target": (config({"targets": {"top1": float("nan")}}), r"targets\.top1.*finite"),
    "target on what is not measured": (
        config({"targets": {"top5_drop": 1.0}}),
        r"unknown target 'top5_drop'; did you mean 'top1_drop'",
    ),
    "target without benchmark": (config({"targets": {"speedup": 2.0}}), "needs a 'benchmark'"),
    "target without INT8": (
        config({"targets": {"top1": 2.0}, "engines.precisions": ["fp32"]}),
        "'top1' needs int8 in 'engines.precisions'",
    ),
    "comparison without FP32": (
        config({"engines.precisions": ["int8"]}),
        "cosine compares with the FP32 engine; add fp32",
    ),
    "no such output": (config({"evaluation.output": "nose"}), "the model has no output 'nose'"),
    "TensorRT is not here": (
        config({"engines": {"backend": "tensorrt"}}),
        r"TensorRT cannot be used.*install|CUDA cannot be used",
    ),
    "TensorRT reads no cache": (config({"calibration.tensorrt": "11.0.0"}), "TensorRT 11"),
    "TensorRT's version": (config({"calibration.tensorrt": "newest"}), "major.minor.patch"),
    "memory for nothing": (
        config({"calibration.max_memory": "1MiB"}),
        r"'calibration\.max_memory' is too little: .*the least that works is \d+ MiB",
    ),
    "unknown executor": (
        config({"executor": {"kind": "locl"}}),
        r"job\.yaml:\d+: executor: unknown executor 'locl'; did you mean 'local'",
    ),
    "checkpoint is text": (
        lambda f: record(f, "{}", "checkpoint.npz"),
        r"cannot read the checkpoint .*checkpoint\.npz: .*; delete it to collect anew",
    ),
    "run folder below a file": (config({"output": "model.onnx/run"}), r"cannot write .*onnx/run"),
    "run folder is a file": (config({"output": "eval.npz"}), r"cannot write .*eval\.npz"),
    "broken run.json": (lambda f: record(f, "{"), r"cannot read .*run\.json: .*; delete it"),
    "run.json of something else": (
        lambda f: record(f, '{"format": 1, "steps": {"prepare": []}}'),
        r"run\.json: steps\.prepare: .*; delete it",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_run_refuses(case: str, tmp_path: Path) -> None:
    spoil, message = CASES[case]
    path = workspace(tmp_path, FAST)
    spoil(tmp_path)
    outcome = quantlab("run", path, "--quiet")
    assert_refused(outcome.code, outcome.err, message)
    assert outcome.out == ""
    assert not left_behind(tmp_path)
    assert not list(tmp_path.rglob("report.*"))


def assert_refused(code: int, err: str, message: str) -> None:
    assert code == 2, err
    assert err.startswith("quantlab: ")
    assert err.count("quantlab: ") == 1
    assert "Traceback" not in err
    assert re.search(message, err, re.S), err


@pytest.mark.parametrize("case", ["model is truncated", "wrong dtype", "misspelt key"])
def test_a_process_refuses_in_one_line(case: str, tmp_path: Path) -> None:
    spoil, message = CASES[case]
    path = workspace(tmp_path, FAST)
    spoil(tmp_path)
    done = subprocess.run([COMMAND, "run", path, "-q"], capture_output=True, text=True, check=False)
    assert_refused(done.returncode, done.stderr, message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("case", ["no labels", "infinity in data"])
def test_what_cannot_be_evaluated_is_not_begun(case: str, tmp_path: Path) -> None:
    path = workspace(tmp_path, FAST)
    CASES[case][0](tmp_path)
    assert quantlab("run", path).code == 2
    assert not (tmp_path / "run/histograms.npz").exists()
    assert quantlab("calibrate", path).code == 0, "which reads none of it"


def test_what_was_done_before_the_refusal_is_kept(tmp_path: Path) -> None:
    path = workspace(tmp_path, FAST)
    CASES["NaN in activations"][0](tmp_path)
    assert quantlab("run", path).code == 2
    assert not (tmp_path / "run/calibration.cache").exists()
    configured(tmp_path, {**FAST, "calibration.nonfinite": "ignore"})
    outcome = quantlab("calibrate", path)
    assert outcome.code == 0
    assert "samples" not in outcome.err  # the histograms were there already
    assert (tmp_path / "run/calibration.cache").exists()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose run folder holds a cache and its manifest."""
    folder = tmp_path_factory.mktemp("calibrated")
    ql.calibrate(workspace(folder))
    return folder


def line(data: bytes, new: bytes) -> bytes:
    """Replace the second tensor's line."""
    lines = data.split(b"\n")
    return b"\n".join([*lines[:2], new, *lines[3:]])


CACHES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "of another model": (
        lambda data: re.sub(rb"\n([^:\n]+:)", rb"\nother_\1", data),
        r"'x'|missing|none of",
    ),
    "truncated": (lambda data: data[:-4], r"cache:\d+: the last line has no line end"),
    "without a line": (lambda data: line(data, b"lost: 3c010204"), "1 tensors missing"),
    "with a bad line": (lambda data: line(data, b"what is this"), r"cache:3: expected '<tensor>"),
    "with NaN": (lambda data: line(data, b"x: 7fc00000"), r"cache:3: tensor 'x': expected a scale"),
    "with a negative scale": (lambda data: line(data, b"x: bc010204"), "finite and not negative"),
    "with infinity": (lambda data: line(data, b"x: 7f800000"), "finite and not negative"),
    "without a header": (lambda data: data.partition(b"\n")[2], "expected a header"),
    "empty": (lambda _: b"", "no TensorRT calibration cache"),
    "binary": (lambda data: data + b"\xff\xfe: 3c010204\n", "UTF-8"),
}


@pytest.mark.parametrize("case", CACHES)
def test_a_cache_is_refused(case: str, calibrated: Path, tmp_path: Path) -> None:
    spoil, message = CACHES[case]
    cache = tmp_path / "found.cache"
    cache.write_bytes(spoil((calibrated / "run/calibration.cache").read_bytes()))
    outcome = quantlab("cache", "verify", cache, calibrated / "run/prepared.onnx")
    assert_refused(outcome.code, outcome.err, message)
    assert [path.name for path in tmp_path.iterdir()] == ["found.cache"]


@pytest.mark.parametrize("case", CACHES)
def test_a_run_whose_cache_was_replaced_builds_nothing(
    case: str, calibrated: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(calibrated, tmp_path / "work")
    cache = folder / "run/calibration.cache"
    cache.write_bytes(CACHES[case][0](cache.read_bytes()))
    outcome = quantlab("build", folder / "job.yaml", "-q")
    assert_refused(outcome.code, outcome.err, r"'decide' is not up to date: calibration\.cache")
    assert not list((folder / "run/engines").iterdir())


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes: writes fail as on a full disk."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("size", [100, 5_000, 16_000, 21_000, 30_000, 60_000])
def test_a_disk_that_is_full_at_any_moment(size: int, backend: str, tmp_path: Path) -> None:
    path = workspace(tmp_path, {**FAST, "engines": {"backend": backend}})
    with file_limit(size):
        outcome = quantlab("run", path, "-q")
    assert_refused(outcome.code, outcome.err, "cannot write .*free disk space")
    assert not left_behind(tmp_path)
    assert not (tmp_path / "run/report.json").exists()


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small disk needs root")
    command = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kibibytes", [60, 120, 200])
def test_a_disk_without_space(kibibytes: int, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", f"size={kibibytes}k") as disk:
        path = workspace(tmp_path, {**FAST, "output": str(disk / "run")})
        outcome = quantlab("run", path, "-q")
        assert_refused(outcome.code, outcome.err, "cannot write .*No space left.*free disk space")
        assert not left_behind(disk)


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "ro") as disk:
        for output in (disk, disk / "run"):
            path = workspace(tmp_path, {**FAST, "output": str(output)})
            outcome = quantlab("run", path, "-q")
            assert_refused(outcome.code, outcome.err, "cannot write .*(Read-only|permission)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    path = workspace(tmp_path, {**FAST, "output": "closed/run"})
    (tmp_path / "closed").mkdir(mode=0o500)
    outcome = quantlab("run", path, "-q")
    assert_refused(outcome.code, outcome.err, "cannot write .*[Pp]ermission denied")


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    ql.run(workspace(tmp_path, FAST))
    pipe = tmp_path / "run/report.html"
    pipe.unlink()
    os.mkfifo(pipe)
    outcome = quantlab("report", tmp_path / "run")
    assert_refused(outcome.code, outcome.err, r"report\.html: it is not a regular file")
    assert pipe.is_fifo()


def test_an_external_data_file_that_is_missing_is_named(tmp_path: Path) -> None:
    path = workspace(tmp_path, FAST)
    found = network()
    onnx.save(
        found,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert quantlab("calibrate", path, "-q").code == 0
    (tmp_path / "weights.bin").unlink()
    for command in ("calibrate", "build", "run"):
        outcome = quantlab(command, path, "-q")
        assert_refused(outcome.code, outcome.err, r"weights\.bin.*missing")


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    path = workspace(tmp_path, FAST)
    net = Net()
    x = net.add(
        "ConstantOfShape",
        [net.weight("shape", np.array([1, 16, 8, 8]))],
        attributes={"value": helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])},
    )
    write(
        net.finish(net.relu(net.conv(net.relu(net.conv(x, (16, 16))), (16, 16)))),
        tmp_path / "model.onnx",
    )
    outcome = quantlab("run", path, "-q")
    assert_refused(outcome.code, outcome.err, "input")
