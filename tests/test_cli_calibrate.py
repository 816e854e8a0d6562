"""``quantlab calibrate``: from a config, or any method from a finished run, as a process."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantlab import cache
from quantlab.calibrators import CALIBRATORS
from tests.models import feeds, stacked, write
from tests.recorded import Recipe, recorded
from tests.runs import COMMAND, FAST, configured, quantlab, workspace


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose run is calibrated by mse, with tied tensors and followers."""
    folder = tmp_path_factory.mktemp("calibrated")
    config = workspace(folder, {**FAST, "calibration.tensors": "all"})
    done = process("calibrate", config)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_runs_own_method_gives_its_cache_again(calibrated: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(calibrated, tmp_path / "work")
    for name in ("model.onnx", "calib.npz", "job.yaml"):  # none of them is needed
        (folder / name).unlink()
    done = process("calibrate", "--from", folder / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    made = folder / "run/methods"
    assert (made / "mse.cache").read_bytes() == (folder / "run/calibration.cache").read_bytes()
    for name in CALIBRATORS:
        assert re.search(rf"\b{name}\b", done.stdout)
        assert set(cache.read(made / f"{name}.cache").scales) == set(
            cache.read(folder / "run/calibration.cache").scales
        )
    assert f"{made}: {len(CALIBRATORS)} caches, methods.csv" in done.stdout


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("percentile", {"percentile": 99.5}), ("entropy", {}), ("minmax", {}), ("minmax_mean", {})],
)
def test_a_method_tried_is_the_method_of_a_config(
    calibrated: Path, tmp_path: Path, method: str, parameters: dict[str, float]
) -> None:
    folder = shutil.copytree(calibrated, tmp_path / "work")
    given = "".join(f":{key}={value}" for key, value in parameters.items())
    outcome = quantlab("calibrate", "--from", folder / "run", "--method", method + given)
    assert outcome.code == 0, outcome.err
    (tried,) = (folder / "run/methods").glob("*.cache")
    changes: dict[str, object] = {**FAST, "calibration.tensors": "all"}
    changes |= {
        f"calibration.{key}": value for key, value in {"method": method, **parameters}.items()
    }
    outcome = quantlab("calibrate", configured(folder, changes))
    assert outcome.code == 0, outcome.err
    assert tried.read_bytes() == (folder / "run/calibration.cache").read_bytes()


def test_minmax_mean_averages_what_each_batch_held(calibrated: Path, tmp_path: Path) -> None:
    """The input is a tensor of its own: 24 samples in batches of 8, straight from the file."""
    run = calibrated / "run"
    for method in ("minmax_mean", "minmax_mean:averaging_constant=0.5"):
        arguments = ("calibrate", "--from", run, "--method", method, "-o", tmp_path)
        assert quantlab(*arguments).code == 0
    with np.load(calibrated / "calib.npz") as file:
        a, b, c = np.abs(file["x"].astype(np.float64)).reshape(3, -1).max(axis=1)
    for label, expected in (
        ("minmax_mean", (a + b + c) / 3),
        ("minmax_mean-averaging_constant=0.5", ((a + b) / 2 + c) / 2),
    ):
        scale = cache.read(tmp_path / f"{label}.cache").scales["x"]
        assert scale == pytest.approx(expected / 127, rel=1e-7)  # a float32


def test_a_network_with_tied_tensors(tmp_path: Path) -> None:
    """Concat ties its inputs and its output: their scales are equal under every method."""
    config = configured(tmp_path, {**FAST, "calibration.tensors": "all"})
    model = stacked(["conv", "concat", "residual"])
    write(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "calib.npz", x=feeds(model, batch=8)["x"])
    outcome = quantlab("calibrate", config)
    assert outcome.code == 0, outcome.err
    assert quantlab("calibrate", "--from", tmp_path / "run").code == 0
    own = cache.read(tmp_path / "run/calibration.cache").scales
    shared = [name for name, scale in own.items() if list(own.values()).count(scale) > 1]
    assert len(shared) > 1
    for path in (tmp_path / "run/methods").glob("*.cache"):
        scales = cache.read(path).scales
        assert list(scales) == list(own)
        groups = [{n for n in own if own[n] == own[name]} for name in shared]
        assert all(len({scales[n] for n in group}) == 1 for group in groups)


def test_few_tensors_have_a_row_each_and_many_a_summary(tmp_path: Path) -> None:
    few, many = recorded(tmp_path / "few"), recorded(tmp_path / "many", Recipe(tensors=40))
    outcome = quantlab("calibrate", "--from", few, "--method", "mse", "--method", "minmax")
    assert outcome.code == 0
    for name in ("t0", "t5"):
        assert re.search(rf"{name} .* \d+\.\d .* \d+\.\d", outcome.out)
    outcome = quantlab("calibrate", "--from", many, "-o", tmp_path / "out")
    assert outcome.code == 0
    assert not re.search(r"^. t7 ", outcome.out, re.M)
    assert re.search(r"minmax_mean .* \d+\.\d .* t\d+ \d+\.\d, t\d+ \d+\.\d, t\d+ \d", outcome.out)
    assert len((tmp_path / "out/methods.csv").read_text().splitlines()) == 1 + 40 * len(CALIBRATORS)


def test_trying_methods_loads_no_engine_and_no_model(tmp_path: Path) -> None:
    """Loading them takes longer than the work: two seconds are promised for 200 tensors."""
    code = f"""
import gc, sys
from quantlab.cli import main
sys.argv = ["quantlab", "calibrate", "--from", {str(recorded(tmp_path / "run"))!r}]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0
assert gc.isenabled()
heavy = ("onnx", "onnx_ir", "onnxruntime", "openvino", "pandas", "matplotlib", "PIL")
print(*[name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either CONFIG or --from RUN"),
        (("job.yaml", "--from", "run"), "either CONFIG or --from RUN"),
        (("job.yaml", "--method", "mse"), "--method goes with --from"),
    ],
)
def test_config_or_run_not_both_not_neither(arguments: tuple[str, ...], message: str) -> None:
    done = process("calibrate", *arguments)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert message in re.sub(r"[\s│]+", " ", done.stderr)


def test_a_bad_method_and_a_bad_run_are_one_message(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run")
    done = process("calibrate", "--from", run, "--method", "mse:level=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("quantlab: method 'mse' has no parameter 'level'")
    (run / "histograms.npz").write_bytes(b"")
    done = process("calibrate", "--from", run)
    assert (done.returncode, done.stdout) == (2, "")
    assert "histograms.npz was altered" in done.stderr
    assert not (run / "methods").exists()
