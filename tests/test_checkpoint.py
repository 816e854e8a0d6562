"""A calibration that was stopped at any moment goes on and gives the bytes of one that was not."""

import json
import random
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

from quantlab.collect.gather import load
from tests.runs import (
    COMMAND,
    FAST,
    SAMPLES,
    Outcome,
    configured,
    left_behind,
    quantlab,
    samples,
    workspace,
)

RESULTS = ("histograms.npz", "batch_amax.npz", "calibration.cache")
PATIENCE = 60.0
"""Seconds until a process that does not do what the test waits for has failed it."""

LOADER = """
import time
from pathlib import Path
import numpy as np

here = Path(__file__).parent


def batches(start=0, stop=None, gain=1.0):
    with np.load(here / "calib.npz") as arrays:
        x = arrays["x"][start:stop] * np.float32(gain)
    for row in x:
        if stop is not None and (here / "slow").exists():
            time.sleep(0.02)
        yield {"x": row[None]}
"""

CHANGES = {
    **FAST,
    "calibration.dataset": {"kind": "python", "function": "loader.py:batches"},
    "calibration.batch": 2,
    "calibration.checkpoint": 1,
}


def made(folder: Path, *, slow: bool) -> Path:
    """Return the config of a calibration of 12 batches with a checkpoint after each."""
    config = workspace(folder, CHANGES)
    (folder / "loader.py").write_text(LOADER)
    if slow:
        (folder / "slow").touch()
    return config


@contextmanager
def running(config: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [str(COMMAND), "calibrate", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Return whether the process still runs when ``condition()`` is true."""
    started = time.monotonic()
    while not condition() and process.poll() is None:
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.0005)
    return process.poll() is None


def changed(path: Path) -> Callable[[], bool]:
    """Return what tells whether the file was replaced since the last call."""
    known = path.stat().st_mtime_ns if path.exists() else 0

    def changed() -> bool:
        nonlocal known
        try:
            now = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        replaced, known = now != known, now
        return replaced

    return changed


def results(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in RESULTS]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What an undisturbed calibration gives."""
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = quantlab("calibrate", made(folder, slow=False), "-q")
    assert outcome.code == 0, outcome.err
    return results(folder / "run")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the checkpoint of a killed calibration, to be copied."""
    folder = tmp_path_factory.mktemp("stopped")
    config = made(folder, slow=True)
    replaced = changed(folder / "run/checkpoint.npz")
    with running(config) as process:
        for _ in range(3):
            assert wait_for(replaced, process)
    (folder / "slow").unlink()
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "work")


def assert_finished(outcome: Outcome, folder: Path, expected: list[bytes]) -> None:
    assert outcome.code == 0, outcome.err
    assert results(folder / "run") == expected
    assert not left_behind(folder)
    assert not (folder / "run/checkpoint.npz").exists()


@pytest.mark.parametrize(
    ("moment", "times"),
    [
        (".tapped.*", 1),
        (".checkpoint.*", 1),
        ("checkpoint.npz", 5),
        ("batch_amax.npz", 1),
    ],
)
def test_a_killed_calibration_goes_on_to_the_same_bytes(
    expected: list[bytes], tmp_path: Path, moment: str, times: int
) -> None:
    config, run = made(tmp_path, slow=True), tmp_path / "run"
    happened = changed(run / moment) if times > 1 else lambda: any(run.glob(moment))
    with running(config) as process:
        for _ in range(times):
            wait_for(happened, process)
        process.kill()
        process.wait()
    kept = (run / "checkpoint.npz").exists()
    if kept:
        load(run / "checkpoint.npz")  # whole, whenever it was
    (tmp_path / "slow").unlink()
    outcome = quantlab("calibrate", config)
    assert ("going on from the checkpoint: " in outcome.err) == kept
    assert_finished(outcome, tmp_path, expected)


def test_a_calibration_that_is_killed_again_and_again_ends_with_the_same_bytes(
    expected: list[bytes], tmp_path: Path
) -> None:
    config, run = made(tmp_path, slow=True), tmp_path / "run"
    moments = random.Random(3)  # noqa: S311  no secret
    done = [0]
    for _ in range(3):
        replaced = changed(run / "checkpoint.npz")
        with running(config) as process:
            wait_for(replaced, process)
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
            process.wait()
        done.append(len(load(run / "checkpoint.npz")[0].done))
    assert done == sorted(set(done)), "each of them brought it on"
    (tmp_path / "slow").unlink()
    assert_finished(quantlab("calibrate", config), tmp_path, expected)


def test_a_calibration_that_is_interrupted_says_how_to_go_on(
    expected: list[bytes], tmp_path: Path
) -> None:
    config, run = made(tmp_path, slow=True), tmp_path / "run"
    with running(config) as process:
        replaced = changed(run / "checkpoint.npz")
        assert wait_for(replaced, process)
        assert wait_for(replaced, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        "quantlab: stopped; the same command goes on from the last step or checkpoint"
    )
    assert not left_behind(tmp_path)
    done = len(load(run / "checkpoint.npz")[0].done)
    assert 2 <= done < SAMPLES // 2
    (tmp_path / "slow").unlink()
    outcome = quantlab("calibrate", config)
    assert f"going on from the checkpoint: {done} of 12 shards are counted" in outcome.err
    assert_finished(outcome, tmp_path, expected)


OTHER: dict[str, tuple[dict[str, object], str]] = {
    "batch": ({"calibration.batch": 3}, r"calibration batch \(2 -> 3\)"),
    "checkpoint": ({"calibration.checkpoint": 2}, r"calibration checkpoint \(1 -> 2\)"),
    "memory": (
        {"calibration.max_memory": "2GiB"},
        r"calibration max_memory \(null -> 2147483648\)",
    ),
    "samples": ({"calibration.samples": 20}, r"calibration samples \(null -> 20\)"),
    "dataset": (
        {"calibration.dataset.arguments": {"gain": 2.0}},
        r"calibration dataset \(\{.*\} -> \{.*",
    ),
    "tensors": ({"calibration.tensors": "all"}, r"tensors \(\[.* -> \["),
}


@pytest.mark.parametrize("change", OTHER)
def test_a_checkpoint_of_another_config_is_refused_and_stays(
    expected: list[bytes], copy: Path, change: str
) -> None:
    changes, message = OTHER[change]
    base = json.loads(json.dumps(CHANGES))  # a copy: keys of the dataset may be added
    config = configured(copy, {**base, **changes})
    before = (copy / "run/checkpoint.npz").read_bytes()
    outcome = quantlab("calibrate", config)
    assert outcome.code == 2
    assert outcome.err.count("quantlab: ") == 1
    assert re.search(rf"another config; changed since: {message}", outcome.err), outcome.err
    assert outcome.err.count("->") == 1, "only what changed is named"
    assert "undo the change" in outcome.err
    assert (copy / "run/checkpoint.npz").read_bytes() == before
    config = configured(copy, CHANGES)
    outcome = quantlab("calibrate", config)
    assert "going on from the checkpoint" in outcome.err
    assert_finished(outcome, copy, expected)


def test_what_the_histograms_do_not_depend_on_may_change(copy: Path) -> None:
    changes = {**CHANGES, "calibration.method": "minmax", "executor": {"kind": "local"}}
    outcome = quantlab("calibrate", configured(copy, {**changes, "executor.threads": 1}))
    assert outcome.code == 0, outcome.err
    assert "going on from the checkpoint" in outcome.err


def test_samples_that_changed_behind_an_unchanged_config_are_named(
    expected: list[bytes], copy: Path
) -> None:
    calib = (copy / "calib.npz").read_bytes()
    before = (copy / "run/checkpoint.npz").read_bytes()
    x = samples(seed=1)
    x[1, 0, 0, 0] += 1
    np.savez(copy / "calib.npz", x=x)
    outcome = quantlab("calibrate", copy / "job.yaml")
    assert outcome.code == 2
    assert outcome.err.count("quantlab: ") == 1
    assert "samples 0 to 1 are not those that the checkpoint counted" in outcome.err
    assert (copy / "run/checkpoint.npz").read_bytes() == before
    (copy / "calib.npz").write_bytes(calib)
    assert_finished(quantlab("calibrate", copy / "job.yaml"), copy, expected)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_damaged_checkpoint_is_one_message(expected: list[bytes], copy: Path, kept: int) -> None:
    path = copy / "run/checkpoint.npz"
    path.write_bytes(path.read_bytes()[:kept])
    before = path.read_bytes()
    outcome = quantlab("calibrate", copy / "job.yaml")
    assert outcome.code == 2
    assert outcome.err.count("quantlab: ") == 1
    assert "cannot read the checkpoint" in outcome.err
    assert "delete it to collect anew" in outcome.err
    assert path.read_bytes() == before
    path.unlink()
    assert_finished(quantlab("calibrate", copy / "job.yaml"), copy, expected)
