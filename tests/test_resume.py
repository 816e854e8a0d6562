"""A run goes on where it was stopped; what is stale, and only that, is made again."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import quantlab as ql
from tests.models import write
from tests.runs import (
    COMMAND,
    FAST,
    configured,
    left_behind,
    network,
    quantlab,
    samples,
    workspace,
)

MEASURED = {"evaluate", "inspect", "benchmark"}
ENGINES = {"build fp32", "build fp16", "build int8"}
DECIDED = {"decide", "build int8", *MEASURED}
EVERYTHING = {"prepare", "collect", "decide", *ENGINES, *MEASURED}
PATIENCE = 60.0
"""Seconds until a process that does not do what the test waits for has failed it."""


def stamps(folder: Path) -> dict[str, str]:
    """Return when each step finished."""
    found = json.loads((folder / "run.json").read_text())["steps"]
    return {name: step["finished"] for name, step in found.items()}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    started = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.001)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [str(COMMAND), *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished run, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = quantlab("run", workspace(folder), "--quiet")
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "work")


@pytest.mark.parametrize(
    "moment",
    [
        ".tapped.*",
        "histograms.npz",
        "calibration.cache",
        "engines/.int8.*",
        "scores.npz",
    ],
)
def test_a_killed_run_goes_on_from_the_last_finished_step(
    finished: Path, tmp_path: Path, moment: str
) -> None:
    config = workspace(tmp_path)
    run = tmp_path / "run"
    with running("run", config) as process:
        wait_for(lambda: list(run.glob(moment)), process)
        process.kill()
        process.wait()
    before = stamps(run)
    outcome = quantlab("run", config, "--quiet")
    assert outcome.code == 0, outcome.err
    after = stamps(run)
    assert after.keys() == EVERYTHING
    assert {step: after[step] for step in before} == before
    cache = (run / "calibration.cache").read_bytes()
    assert cache == (finished / "run" / "calibration.cache").read_bytes()
    assert (run / "scores.npz").read_bytes() == (finished / "run" / "scores.npz").read_bytes()
    assert not left_behind(tmp_path)


def waiting(folder: Path) -> Path:
    """Return the config of a run that collects until a file named "go" appears."""
    loader = """
        import time
        from pathlib import Path
        import numpy as np

        def batches():
            here = Path(__file__).parent
            (here / "asked").touch()
            while not (here / "go").exists():
                time.sleep(0.001)
            with np.load(here / "calib.npz") as arrays:
                yield {"x": arrays["x"]}
    """
    dataset = {"kind": "python", "function": "loader.py:batches"}
    config = workspace(folder, {**FAST, "calibration.dataset": dataset})
    (folder / "loader.py").write_text("\n".join(line[8:] for line in loader.splitlines()))
    return config


def test_a_second_run_in_the_folder_is_refused_and_the_first_is_not_disturbed(
    tmp_path: Path,
) -> None:
    config = waiting(tmp_path)
    with running("run", config, "-q") as first:
        wait_for((tmp_path / "asked").exists, first)
        for command in ("run", "calibrate", "build", "evaluate", "report"):
            second = quantlab(command, config)
            assert second.code == 2
            assert "in use by another run" in second.err
            assert str(tmp_path / "run") in second.err
        (tmp_path / "go").touch()
        _, err = first.communicate(timeout=PATIENCE)
    assert (first.returncode, err) == (0, "")
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_tidies_up(tmp_path: Path, number: int) -> None:
    config = waiting(tmp_path)
    with running("run", config, "-q") as process:
        wait_for((tmp_path / "asked").exists, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out == ""
    assert err == "quantlab: stopped; the same command goes on from the last step or checkpoint\n"
    assert not left_behind(tmp_path)
    assert stamps(tmp_path / "run").keys() == {"prepare"}


def other_weights(folder: Path) -> None:
    write(network(seed=1), folder / "model.onnx")


def other_samples(folder: Path, name: str) -> None:
    arrays = dict(np.load(folder / name))
    arrays["x"] = samples(seed=7)
    np.savez(folder / name, **arrays)


def edited(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nothing": (Path.exists, set()),
    "weights": (other_weights, EVERYTHING),
    "calibration samples": (
        lambda folder: other_samples(folder, "calib.npz"),
        {"collect", *DECIDED},
    ),
    "evaluation samples": (lambda folder: other_samples(folder, "eval.npz"), {"evaluate"}),
    "cache edited": (lambda folder: edited(folder / "run/calibration.cache"), {"decide"}),
    "cache lost": (lambda folder: (folder / "run/calibration.cache").unlink(), {"decide"}),
    "manifest edited": (lambda folder: edited(folder / "run/calibration.json"), {"decide"}),
    "histograms lost": (
        lambda folder: (folder / "run/histograms.npz").unlink(),
        {"collect", "decide"},
    ),
    "prepared model edited": (lambda folder: edited(folder / "run/prepared.onnx"), {"prepare"}),
    "engine lost": (lambda folder: (folder / "run/engines/fp16.onnx").unlink(), {"build fp16"}),
    "engine edited": (lambda folder: edited(folder / "run/engines/int8.onnx"), {"build int8"}),
    "scores edited": (lambda folder: edited(folder / "run/scores.npz"), {"evaluate"}),
    "timings lost": (lambda folder: (folder / "run/benchmark.json").unlink(), {"benchmark"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_redoes_what_depends_on_it(copy: Path, change: str) -> None:
    apply, redone = CHANGES[change]
    assert_redone(copy, apply, redone)


SETTINGS: dict[str, tuple[dict[str, object], set[str]]] = {
    "method": ({"calibration.method": "minmax"}, DECIDED),
    "method's parameter": ({"calibration.levels": 100}, DECIDED),
    "calibration samples": ({"calibration.samples": 8}, {"collect", *DECIDED}),
    "calibration batch": ({"calibration.batch": 5}, {"collect", "decide"}),
    "header of the cache": ({"calibration.tensorrt": "8.6.1"}, {"decide", "build int8"}),
    "all tensors": ({"calibration.tensors": "all"}, {"collect", "decide", "build int8"}),
    "calibration dataset's parameter": (
        {"calibration.dataset.class_names": "names.txt"},
        {"collect", "decide"},
    ),
    "evaluation dataset's parameter": (
        {"evaluation.dataset.class_names": "names.txt"},
        {"evaluate"},
    ),
    "metrics": ({"evaluation.metrics": ["top1"]}, {"evaluate"}),
    "threads": ({"engines.threads": 2}, {*ENGINES, *MEASURED}),
    "backend": (
        {"engines": {"backend": "reference"}},
        {"collect", "decide", *ENGINES, *MEASURED},
    ),
    "precisions": ({"engines.precisions": ["fp32", "int8"]}, MEASURED),
    "benchmark": ({"benchmark.seconds": 0.02}, {"benchmark"}),
    "targets": ({"targets": {"cosine": 0.1}}, set()),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_changed_setting_redoes_what_it_concerns(copy: Path, setting: str) -> None:
    changes, redone = SETTINGS[setting]
    (copy / "names.txt").write_text("\n".join(f"class {i}" for i in range(8)))
    assert_redone(copy, lambda folder: configured(folder, changes), redone)


def assert_redone(folder: Path, change: Callable[[Path], object], redone: set[str]) -> None:
    config, before = folder / "job.yaml", stamps(folder / "run")
    change(folder)
    for command in (ql.calibrate, ql.build, ql.evaluate):
        command(config)
    after = stamps(folder / "run")
    assert {step for step in after if after[step] != before[step]} == redone
    (folder / "run/engines/int8.onnx").unlink()
    ql.build(config)  # reads the cache, whose manifest must tell of the same samples and settings


REFUSALS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no calibration": ("build", lambda f: shutil.rmtree(f / "run"), r"'prepare'.*not done yet.*"),
    "method": (
        "build",
        lambda f: configured(f, {"calibration.method": "minmax"}),
        "'decide'.*method changed.*'quantlab calibrate",
    ),
    "model": ("build", other_weights, "'prepare'.*model changed.*'quantlab calibrate"),
    "samples": (
        "evaluate",
        lambda f: configured(f, {"calibration.samples": 8}),
        "'collect'.*calibration samples changed",
    ),
    "cache": (
        "build",
        lambda f: edited(f / "run/calibration.cache"),
        "'decide'.*calibration.cache was altered",
    ),
    "threads": (
        "evaluate",
        lambda f: configured(f, {"engines.threads": 2}),
        "'build fp32'.*backend parameters changed.*'quantlab build",
    ),
    "engine": (
        "evaluate",
        lambda f: (f / "run/engines/int8.onnx").unlink(),
        r"'build int8'.*engines/int8\.onnx is missing",
    ),
    "metrics": (
        "report",
        lambda f: configured(f, {"evaluation.metrics": ["top1"]}),
        "'evaluate'.*metrics changed.*'quantlab evaluate",
    ),
    "timings": (
        "report",
        lambda f: (f / "run/benchmark.json").unlink(),
        r"'benchmark'.*benchmark\.json is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_step_alone_refuses_to_start_from_what_is_stale(copy: Path, case: str) -> None:
    command, change, message = REFUSALS[case]
    change(copy)
    before = (copy / "run/report.json").read_bytes() if case != "no calibration" else b""
    outcome = quantlab(command, copy / "job.yaml")
    assert outcome.code == 2
    assert outcome.err.count("quantlab: ") == 1
    assert re.search(message, outcome.err), outcome.err
    if before:
        assert (copy / "run/report.json").read_bytes() == before


def test_a_run_folder_may_be_moved(copy: Path) -> None:
    shutil.move(copy, copy.with_name("moved"))
    moved = copy.with_name("moved")
    assert_redone(moved, Path.exists, set())
