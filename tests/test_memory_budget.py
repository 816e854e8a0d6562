"""Under a memory budget tensors are collected in several passes: the same bytes, within it."""

import json
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.models import Net, write
from tests.runs import COMMAND, left_behind

MIB = 1 << 20
RESULTS = ("histograms.npz", "batch_amax.npz", "calibration.cache")
LANES = 2
"""On one the network needs hardly more memory than the least that works."""

DRIFT = 2 * MIB
"""What one process holds more than another that does the same."""


@dataclass(frozen=True)
class Done:
    """What a calibration as a process gave.

    Attributes:
        run: its folder.
        code, told: exit code, and what it wrote.
        peak: largest resident memory of the whole process that was seen, in bytes.
    """

    run: Path
    code: int
    told: str
    peak: int

    @property
    def how(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.run / "collection.json").read_text())
        return found

    def results(self) -> list[bytes]:
        return [(self.run / name).read_bytes() for name in RESULTS]


def calibrate(folder: Path, output: Path, budget: int | None) -> Done:
    """Calibrate in a process of its own, and look at its memory all the time."""
    dataset = {"kind": "npz", "path": str(folder / "calib.npz")}
    calibration: dict[str, object] = {"dataset": dataset, "batch": 2, "tensors": "all"}
    if budget is not None:
        calibration["max_memory"] = budget
    tree = {
        "model": str(folder / "model.onnx"),
        "calibration": calibration,
        "executor": {"kind": "local", "threads": LANES},
        "engines": {"backend": "onnxruntime"},
        "output": str(output / "run"),
    }
    output.mkdir(exist_ok=True)
    (output / "job.yaml").write_text(yaml.safe_dump(tree))
    command = [str(COMMAND), "calibrate", str(output / "job.yaml")]
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            held = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            peak = max(peak, int(held[1]) * 1024 if held else 0)
            time.sleep(0.01)
        told = process.communicate()[1]
    return Done(output / "run", process.returncode, told, peak)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples for a network of 20 activations of 4 MiB each."""
    folder = tmp_path_factory.mktemp("wide")
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 1, 256, 256)), (1, 16), name="stem"))
    for _ in range(9):
        x = net.relu(net.conv(x, (16, 16), kernel=1))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    write(net.finish(net.gemm(x, (16, 16), name="head")), folder / "model.onnx")
    samples = np.random.default_rng(0).normal(size=(2, 1, 256, 256)).astype(np.float32)
    np.savez(folder / "calib.npz", x=samples)
    return folder


@pytest.fixture(scope="module")
def free(folder: Path) -> Done:
    done = calibrate(folder, folder / "free", None)
    assert done.code == 0, done.told
    assert "memory:" not in done.told
    assert done.how["passes"] == 1
    return done


@pytest.fixture(scope="module")
def least(folder: Path) -> int:
    """Bytes that the message says would be enough."""
    done = calibrate(folder, folder / "least", MIB)
    assert done.code == 2
    assert done.told.count("quantlab: ") == 1
    said = re.search(
        r"'calibration.max_memory' is too little.* the largest tensor, '\w+', takes 4.0 MiB; "
        r"the least that works is (\d+) MiB$",
        done.told.strip(),
    )
    assert said, done.told
    assert not left_behind(folder)
    return int(said[1]) * MIB


@pytest.mark.parametrize(("more", "most_passes"), [(DRIFT, 10), (16 * MIB, 4), (800 * MIB, 1)])
def test_a_budget_is_kept_and_changes_no_byte(
    folder: Path, free: Done, least: int, tmp_path: Path, more: int, most_passes: int
) -> None:
    budget = least + more
    done = calibrate(folder, tmp_path, budget)
    assert done.code == 0, done.told
    assert free.peak > least, "the network needs a budget at all"
    assert done.results() == free.results()
    passes = done.how["passes"]
    assert min(2, most_passes) <= passes <= most_passes
    expected = done.how["expected_peak_bytes"]
    assert 0 < done.how["peak_rss_bytes"] <= expected <= budget
    assert done.peak <= budget, "what comes before and behind stays within it too"
    plan = rf"memory: {passes} pass(es)? over the samples, \d slices? of \d samples at once; "
    assert re.search(rf"{plan}expected peak \d+ MiB of {budget >> 20} MiB\ncalib", done.told)
    assert "warning" not in done.told


def test_less_than_the_least_is_refused(folder: Path, least: int, tmp_path: Path) -> None:
    done = calibrate(folder, tmp_path, least - 8 * MIB)
    assert done.code == 2
    assert "the least that works is" in done.told
    assert not (done.run / "histograms.npz").exists()
