"""``quantlab migrate``: what it prints and writes, its exit codes, nothing by halves."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quantlab.graph.foreign_qdq import check
from quantlab.graph.model import load
from quantlab.graph.qdq_points import points, settle
from tests.graph.foreign import CHANNELS, Spoilt
from tests.models import Net, write
from tests.runs import quantlab

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples/fashion_mnist/mobilenet.onnx"
CACHE = ROOT / "examples/migrate/mobilenet-trt100300.cache"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_partial_cache_makes_a_model_and_names_what_stays_in_float(tmp_path: Path) -> None:
    done = quantlab("migrate", CACHE, MODEL)
    assert done.code == 0, done.err
    said = done.out
    assert "TRT-100300-MinMaxCalibration: 57 tensors; the model's layers read 31 as INT8" in said
    assert "scales found: 28 (3 suffix, 2 tied, 23 exact)" in said
    assert "  image: suffix: 'image:0'" in said
    assert "  clip_0_out: tied to 'stem_out'" in said
    assert "scale 0, which is none: 2: blocks.3.depthwise_out, clip_7_out" in said
    assert "made by TensorRT's parser: 1: ONNXTRT_Broadcast_51_output" in said
    assert "no tensor of the model: 1: aux_head_out" in said
    assert "INT8: 28 of 32 layers with weights, 93.6% of the multiplications" in said
    assert "  Conv blocks.3.project: 'clip_7_out' has scale 0, so none, in the cache" in said
    folder = tmp_path / "mobilenet-tensorrt11"
    assert contents(folder) == {"int8.onnx", "migration.json"}
    model = load(folder / "int8.onnx")
    assert check(settle(model)) == ()
    quantized = {p.tensor for p in points(model) if p.node is p.quantizer}
    assert len(quantized) == 28
    report = json.loads((folder / "migration.json").read_text())
    assert {match["tensor"] for match in report["matches"]} == quantized
    lost = [row["node"] for row in report["layers"] if row["tensor"] and not row["quantized"]]
    assert lost == ["blocks.3.project", "blocks.6.expand", "blocks.6.depthwise", "add_2"]


@pytest.mark.parametrize("options", [(), ("--fp16",)], ids=["fp32", "fp16"])
def test_a_plan_report_builds_and_has_a_row_for_every_layer(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    cache = ROOT / "examples/migrate/resnet-trt8601.cache"
    model = ROOT / "examples/fashion_mnist/resnet.onnx"
    out = tmp_path / "deep/out"
    done = quantlab("migrate", cache, model, "-o", out, "--plan-report", *options)
    assert done.code == 0, done.err
    assert "scales found: 13 (13 exact)" in done.out
    rows = {line.split("│")[1].strip(): line for line in done.out.splitlines() if "│" in line}
    assert {
        row["node"] for row in json.loads((out / "migration.json").read_text())["layers"]
    } <= set(rows)
    assert "the cache's own" in rows["stem"]
    assert "too narrow to fill an INT8 tile" in rows["classifier"]
    assert contents(out) >= {"int8.onnx", "migration.json", "plan.json", "engines/int8.plan"}
    plan = json.loads((out / "plan.json").read_text())
    assert plan["builder"].startswith("TensorRT")
    assert plan["size_bytes"] >= (out / "engines/int8.plan").stat().st_size
    half = any(
        t.dtype == ir.DataType.FLOAT16 for t in load(out / "int8.onnx").graph.initializers.values()
    )
    assert half is bool(options)


def test_a_cache_of_another_model_is_exit_code_2_and_leaves_nothing(tmp_path: Path) -> None:
    net = Net()
    other = write(net.finish(net.conv(net.input(), (16, 16), name="c")), tmp_path / "m.onnx")
    done = quantlab("migrate", CACHE, other)
    assert done.code == 2
    assert "gives none of the model's layers a scale" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-5], "the file is truncated"),
        (lambda data: data.replace(b"TRT-1", b"TRX-1"), "this is no TensorRT calibration cache"),
        (lambda data: data.replace(b": 3cc77efe", b" 3cc77efe"), "expected '<tensor>: <1 to 8 hex"),
        (lambda data: data.replace(b"TRT-100300", b"TRT-8XXX"), "quantlab cache convert"),
    ],
    ids=["truncated", "no cache", "line", "header"],
)
def test_a_damaged_cache_is_exit_code_2(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    bad = tmp_path / "bad.cache"
    bad.write_bytes(damage(CACHE.read_bytes()))
    done = quantlab("migrate", bad, MODEL)
    assert done.code == 2
    assert message in done.err
    assert contents(tmp_path) == {"bad.cache"}


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mobilenet-tensorrt11").mkdir()
    done = quantlab("migrate", CACHE, MODEL)
    assert done.code == 2
    assert "exists and would be replaced" in done.err
    assert contents(tmp_path) == set()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A model with UINT8 activations and an INT32 bias."""
    return write(Spoilt(zero=np.uint8(0), bias="int32").model(), tmp_path / "other.onnx")


def test_findings_are_all_named_and_are_exit_code_2(foreign: Path, tmp_path: Path) -> None:
    done = quantlab("migrate", foreign)
    assert done.code == 2
    assert "  QuantizeLinear quantize of x: its integers are UINT8 with zero point 0" in done.out
    assert "  DequantizeLinear bias of b: it stores INT32, as a bias" in done.out
    assert "2 findings, the first is" in done.err
    assert "other.onnx --convert'" in done.err
    assert contents(tmp_path) == {"other.onnx"}


def test_converting_writes_a_model_that_is_fit_and_says_what_it_costs(
    foreign: Path, tmp_path: Path
) -> None:
    np.savez(
        tmp_path / "x.npz",
        x=np.random.default_rng(0).uniform(0, 5, (4, CHANNELS, 8, 8)).astype(np.float32),
    )
    done = quantlab("migrate", foreign, "--convert", "--samples", tmp_path / "x.npz")
    assert done.code == 0, done.err
    assert "converted, 4 samples: output y is at " in done.out
    assert "unconverted, its UINT8 read as INT8: output y is at " in done.out
    out = tmp_path / "other-tensorrt11"
    assert contents(out) == {"int8.onnx", "migration.json"}
    report = json.loads((out / "migration.json").read_text())
    assert [row["tensor"] for row in report["cost"]["tensors"]] == ["x", "b"]
    assert check(settle(load(out / "int8.onnx"))) == ()
    again = quantlab("migrate", out / "int8.onnx")
    assert again.code == 0
    assert "TensorRT takes it as it is" in again.out


def test_without_samples_steps_and_weights_are_told(tmp_path: Path) -> None:
    model = Spoilt(zero=np.uint8(0), weights=np.uint8, weight_zero=0).model()
    done = quantlab("migrate", write(model, tmp_path / "m.onnx"), "--convert", "-o", "out")
    assert done.code == 0, done.err
    rows = {line.split("│")[1].strip(): line for line in done.out.splitlines() if "│" in line}
    assert "x 2.01" in rows["x"]
    assert "yes" in rows["x"]
    assert " dB" in rows["w"]
    assert "give --samples" in done.out


def test_what_cannot_be_converted_is_exit_code_2_and_leaves_nothing(tmp_path: Path) -> None:
    model = write(Spoilt(zero=np.int16(0), opset=21).model(), tmp_path / "m.onnx")
    done = quantlab("migrate", model, "--convert", "-o", "out")
    assert done.code == 2
    assert "not convertible: quantize the FP32 model" in done.out
    assert "1 of 1 findings cannot be converted" in done.err
    assert "its integers are INT16" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


def test_weights_beyond_fp16_are_named(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="c")
    y = net.add("Mul", [x, net.weight("huge", np.full((1, 16, 1, 1), 1e5, np.float32))])
    path = write(net.finish(y), tmp_path / "m.onnx")
    (tmp_path / "old.cache").write_text("TRT-8601-EntropyCalibration2\nx: 3c010204\n")
    done = quantlab("migrate", "old.cache", path, "--fp16")
    assert done.code == 0, done.err
    assert "beyond FP16's 65504 and clipped to it: huge" in done.out


def test_a_fit_model_is_built_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = write(Spoilt().model(), tmp_path / "fit.onnx")
    done = quantlab("migrate", model, "--plan-report")
    assert done.code == 0, done.err
    out = tmp_path / "fit-tensorrt11"
    assert contents(out) == {"plan.json", "engines/int8.plan", "engines/int8.plan.json"}
    onnx.checker.check_model(onnx.load(model))
    refused = quantlab("migrate", model, "--convert", "-o", tmp_path / "again")
    assert refused.code == 2
    assert "nothing to convert" in refused.err
    assert not (tmp_path / "again").exists()


def test_what_the_builder_refuses_is_told_and_the_model_is_kept(tmp_path: Path) -> None:
    """An output that the parser of TensorRT has no operator for: quantized, but not to be built."""
    pytest.importorskip("tensorrt_rtx")
    net = Net()
    x = net.conv(net.input(shape=(1, 16, 8, 8)), (16, 16), name="c")
    model = net.finish(net.add("Det", [x]))
    path = write(model, tmp_path / "det.onnx")
    cache = tmp_path / "old.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nx: 3c010204\n")
    done = quantlab("migrate", cache, path, "--plan-report")
    assert done.code == 2
    assert "Det" in done.err
    out = tmp_path / "det-tensorrt11"
    assert contents(out) == {"int8.onnx", "migration.json", "plan.json"}
    assert "Det" in json.loads((out / "plan.json").read_text())["refused"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.cache", "b.onnx", "c.onnx"),
        ("a.cache", "b.onnx", "--convert"),
        ("b.onnx", "--fp16"),
        ("b.onnx", "--samples", "x.npz"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...]) -> None:
    done = quantlab("migrate", *arguments)
    assert done.code == 2


def test_a_float_model_alone_is_an_error() -> None:
    done = quantlab("migrate", MODEL)
    assert done.code == 2
    assert "is not quantized" in done.err
    assert "OLD.cache" in done.err


def test_a_run_refuses_a_quantized_model_and_says_what_checks_it(
    foreign: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((4, CHANNELS, 8, 8), np.float32))
    (tmp_path / "c.yaml").write_text(
        f"model: {foreign}\n"
        "calibration: {dataset: {kind: npz, path: x.npz}, samples: 4}\n"
        "engines: {backend: openvino}\n"
    )
    done = quantlab("run", tmp_path / "c.yaml")
    assert done.code == 2
    assert "quantized already" in done.err
    assert "'quantlab migrate MODEL.onnx'" in done.err


def test_a_full_disk_or_a_file_in_the_way_leaves_no_folder(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = quantlab("migrate", foreign, "--convert", "-o", tmp_path / "file/out")
    assert done.code == 2
    assert "cannot write" in done.err
    assert contents(tmp_path) == {"file", "other.onnx"}
