"""The commands: exit codes, what they print, what they import."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import yaml

import quantlab as ql
from quantlab import cache
from quantlab.engines import ENGINES
from tests.runs import COMMAND, FAST, configured, quantlab, workspace

HEAVY = (
    *("numpy", "pandas", "pydantic", "onnx", "onnx_ir", "onnxruntime", "openvino", "numba"),
    *("matplotlib", "scipy", "PIL", "yaml", "psutil"),
)


def loaded(code: str) -> set[str]:
    """Return which of HEAVY a fresh process has imported after ``code``."""
    text = f"{code}\nimport sys\nprint(*[n for n in {HEAVY} if n in sys.modules], file=sys.stderr)"
    command = [sys.executable, "-P", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_quantlab_loads_numpy_at_most() -> None:
    assert loaded("import quantlab") <= {"numpy"}


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ("--help", set()),
        ("run --help", {"pydantic"}),  # typer checks options with it
        ("cache convert --help", {"pydantic"}),
        ("--version", {"pydantic"}),
    ],
)
def test_help_imports_nothing_heavy(arguments: str, allowed: set[str]) -> None:
    code = f"""
import sys
from quantlab.cli import main
sys.argv = ["quantlab", *{arguments.split()}]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0
"""
    assert loaded(code) <= allowed


def test_the_interface_of_the_package() -> None:
    assert {"run", "calibrate", "build", "evaluate", "report", "init"} <= set(ql.__all__)
    for name in ql.__all__:
        assert getattr(ql, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ql.nothing


def test_the_package_is_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantlab", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == quantlab("--version").out


def test_names_of_strangers_cannot_move_the_cursor(tmp_path: Path) -> None:
    path = tmp_path / "found.cache"
    path.write_bytes(b"TRT-8601-EntropyCalibration2\nx\x1b[2J: 3c010204\n")
    assert "x\\x1b[2J" in quantlab("cache", "show", path).out
    odd = tmp_path / "a\x1b[2J.cache"
    outcome = quantlab("cache", "show", odd)
    assert outcome.code == 2
    assert "a\\x1b[2J.cache" in outcome.err
    assert "\x1b" not in outcome.err


def test_help_lists_every_command() -> None:
    outcome = quantlab("--help")
    assert outcome.code == 0
    for command in ("run", "init", "calibrate", "build", "evaluate", "report", "compare"):
        assert re.search(rf"\b{command}\b", outcome.out)
    assert re.search(r"quantlab \d+\.\d+", quantlab("--version").out)


@pytest.mark.parametrize("arguments", [["--nope"], ["run"], ["rum"], ["run", "a", "b"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    outcome = quantlab(*arguments)
    assert outcome.code == 2
    assert "Usage" in outcome.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished run whose cache holds every tensor."""
    folder = tmp_path_factory.mktemp("cli")
    ql.run(workspace(folder, {**FAST, "calibration.tensors": "all"}))
    return folder


def test_run_prints_the_result_and_says_what_it_does(tmp_path: Path) -> None:
    outcome = quantlab("run", workspace(tmp_path, FAST))
    assert outcome.code == 0
    assert "Engines side by side" in outcome.out
    assert f"report: {tmp_path / 'run' / 'report.html'}" in outcome.out
    assert "INT8" in outcome.out
    assert "calibrating" in outcome.err
    assert "building int8" in outcome.err
    again = quantlab("run", tmp_path / "job.yaml", "--quiet")
    assert (again.code, again.out, again.err) == (0, outcome.out, "")


def test_warnings_of_the_report_are_printed(tmp_path: Path) -> None:
    changes = {**FAST, "evaluation.dataset": {"kind": "npz", "path": "calib.npz"}}
    outcome = quantlab("run", workspace(tmp_path, changes))
    assert "warning: accuracy was measured on calibration samples" in outcome.err
    assert "warning:" in quantlab("report", tmp_path / "job.yaml").err


def test_the_steps_print_what_they_made(tmp_path: Path) -> None:
    config = workspace(tmp_path, FAST)
    run = tmp_path / "elsewhere"
    for command, expected in (
        ("calibrate", str(run / "calibration.cache")),
        ("build", "int8: engines/int8.onnx, 0.0"),
        ("evaluate", str(run)),
        ("report", f"report: {run / 'report.html'}"),
    ):
        outcome = quantlab(command, config, "--output", run)
        assert outcome.code == 0, outcome.err
        assert expected in outcome.out
    assert not (tmp_path / "run").exists()


def test_a_missed_target_exits_with_3_and_the_report_is_there(tmp_path: Path) -> None:
    config = workspace(tmp_path, {**FAST, "targets": {"cosine": 2.0}})
    for command in ("run", "report"):
        outcome = quantlab(command, config)
        assert outcome.code == 3
        assert "quantlab: 1 of 1 targets missed: cosine: limit 2, came" in outcome.err
        assert "misses its target for cosine" in outcome.out
    assert (tmp_path / "run" / "report.html").exists()
    configured(tmp_path, {**FAST, "targets": {"cosine": 0.5}})
    assert quantlab("run", config).code == 0


def test_a_mistake_in_the_users_own_code_keeps_its_traceback_and_exits_with_1(
    tmp_path: Path,
) -> None:
    dataset = {"kind": "python", "function": "loader.py:batches"}
    config = workspace(tmp_path, {**FAST, "calibration.dataset": dataset})
    (tmp_path / "loader.py").write_text("def batches():\n    return 1 / 0\n")
    done = subprocess.run([COMMAND, "run", config], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "loader.py" in done.stderr


def test_report_renders_a_run_folder_again(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "run", tmp_path / "run")
    (run / "report.html").unlink()
    outcome = quantlab("report", run)
    assert outcome.code == 0
    assert (run / "report.html").exists()
    elsewhere = quantlab("report", run, "-o", tmp_path / "copy")
    assert elsewhere.code == 0
    assert (tmp_path / "copy" / "report.md").exists()
    outcome = quantlab("report", tmp_path)
    assert outcome.code == 2
    assert "report.json" in outcome.err


def test_compare_names_both_runs(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "new")
    outcome = quantlab("compare", finished / "run", tmp_path / "new")
    assert outcome.code == 0
    assert {"run", "new"} <= set(re.findall(r"\w+", outcome.out))
    outcome = quantlab("compare", finished / "run", tmp_path)
    assert outcome.code == 2
    assert str(tmp_path / "report.json") in outcome.err


def test_doctor_lists_every_engine_and_says_what_is_missing() -> None:
    outcome = quantlab("doctor")
    assert outcome.code == 0
    for name in ENGINES:
        assert re.search(rf"^engine {name}: (not usable|usable( to build)?): .+", outcome.out, re.M)
    assert re.search(r"engine onnxruntime: usable: onnxruntime \d", outcome.out)


def test_schema_is_valid_and_the_shipped_configs_fit() -> None:
    outcome = quantlab("schema")
    schema = json.loads(outcome.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    configs = list((Path(__file__).parent.parent / "examples").rglob("*.yaml"))
    assert configs
    for path in configs:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "m.onnx", "calibration": {"sample": 1}}, schema)


def test_init_refuses_to_overwrite(tmp_path: Path) -> None:
    workspace(tmp_path)
    outcome = quantlab("init", tmp_path / "model.onnx")
    assert outcome.code == 0
    assert f"wrote {tmp_path / 'model.yaml'}" in outcome.out
    outcome = quantlab("init", tmp_path / "model.onnx")
    assert outcome.code == 2
    assert "exists; delete it or name another file with --output" in outcome.err
    assert quantlab("init", tmp_path / "model.onnx", "-o", tmp_path / "b.yaml").code == 0


# The commands of calibration caches, on a real run's cache.


def test_show_prints_every_tensor(finished: Path) -> None:
    path = finished / "run/calibration.cache"
    outcome = quantlab("cache", "show", path)
    scales = cache.read(path).scales
    assert outcome.out.splitlines()[0].endswith(f"{len(scales)} tensors")
    shown = [line.split()[-1] for line in outcome.out.splitlines()[1:]]
    assert shown == list(scales)


def test_verify_accepts_the_prepared_model_and_the_original(finished: Path) -> None:
    path = finished / "run/calibration.cache"
    for model in ("run/prepared.onnx", "model.onnx"):
        for options in ([], ["--implicit"]):
            outcome = quantlab("cache", "verify", path, finished / model, *options)
            assert outcome.code == 0, outcome.err
            assert "the cache fits the model" in outcome.out


def test_verify_says_what_tensorrt_without_qdq_would_miss(tmp_path: Path) -> None:
    ql.calibrate(workspace(tmp_path))
    arguments = ("cache", "verify", tmp_path / "run/calibration.cache", tmp_path / "model.onnx")
    assert quantlab(*arguments).code == 0
    outcome = quantlab(*arguments, "--implicit")
    assert outcome.code == 2
    assert re.search(r"does not fit .*: \d+ tensors missing; recalibrate", outcome.err)
    assert "missing: 'head_out'" in outcome.out or "missing: " in outcome.out


def test_verify_says_that_the_model_changed(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "work")
    model = onnx.load(folder / "model.onnx")
    weight = model.graph.initializer[0]
    values = np.array(onnx.numpy_helper.to_array(weight)) * np.float32(2)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "model.onnx")
    path = folder / "run/calibration.cache"
    outcome = quantlab("cache", "verify", path, folder / "model.onnx")
    assert outcome.code == 2
    assert "model weights" in outcome.err
    (folder / "run/calibration.json").unlink()
    outcome = quantlab("cache", "verify", path, folder / "model.onnx")
    assert outcome.code == 0
    assert "no manifest lies beside it" in outcome.out


def test_diff_of_two_methods(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "work")
    first, second = finished / "run/calibration.cache", folder / "run/calibration.cache"
    assert "the scales are the same" in quantlab("cache", "diff", first, second).out
    config = configured(
        folder, {**FAST, "calibration.tensors": "all", "calibration.method": "minmax"}
    )
    ql.calibrate(config)
    outcome = quantlab("cache", "diff", first, second)
    assert outcome.code == 0
    assert re.search(r"^\S+: \S+ -> \S+  x 1\.\d+$", outcome.out, re.M)
    assert re.search(r"^\d+ tensors differ$", outcome.out, re.M)


@pytest.mark.parametrize("suffix", ["flatbuffers", "json", "txt"])
def test_convert_to_onnxruntimes_table_and_back(
    finished: Path, tmp_path: Path, suffix: str
) -> None:
    source = finished / "run/calibration.cache"
    table, back = tmp_path / f"table.{suffix}", tmp_path / "back.cache"
    outcome = quantlab("cache", "convert", source, table)
    assert outcome.code == 0
    assert "ONNX Runtime table" in outcome.out
    refused = quantlab("cache", "convert", table, back)
    assert refused.code == 2
    assert "--tensorrt" in refused.err or "version" in refused.err
    assert quantlab("cache", "convert", table, back, "--tensorrt", "8.6.1").code == 0
    found = cache.read(back)
    assert str(found.header) == "TRT-8601-EntropyCalibration2"
    assert found.scales == pytest.approx(dict(cache.read(source).scales), rel=1e-6)


def test_convert_to_another_tensorrt_or_algorithm(finished: Path, tmp_path: Path) -> None:
    source = finished / "run/calibration.cache"
    own = cache.read(source).header
    for options, expected in (
        (["--tensorrt", "8.6.1"], f"TRT-8601-{own.algorithm}"),
        (["--algorithm", "MinMaxCalibration"], f"TRT-{own.number}-MinMaxCalibration"),
        (
            ["--tensorrt", "10.3.0", "--algorithm", "LegacyCalibration"],
            "TRT-100300-LegacyCalibration",
        ),
    ):
        target = tmp_path / expected / "new.cache"
        target.parent.mkdir()
        assert quantlab("cache", "convert", source, target, *options).code == 0
        assert str(cache.read(target).header) == expected
        assert cache.read(target).scales == cache.read(source).scales
        assert target.with_suffix(".json").exists()  # the manifest went along
        again = quantlab("cache", "convert", source, target)
        assert (again.code, "exists" in again.err) == (2, True)
    table, target = tmp_path / "table.txt", tmp_path / "back.cache"
    assert quantlab("cache", "convert", source, table).code == 0
    outcome = quantlab("cache", "convert", table, target, "--algorithm", "MinMaxCalibration")
    assert outcome.code == 2
    assert "names no TensorRT; give --tensorrt" in outcome.err
