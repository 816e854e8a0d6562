"""Peak memory of calibration, and ONNX Runtime's calibrators beside it, in fresh processes."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.child import BATCH
from benchmarks.figures import Cost, Figure, ratio
from benchmarks.material import ROOT

MOST, FEW = 64, 4
LIMIT = 1.02
REPEATS = 5

NAMES = {
    "plain": "plain inference",
    "quantlab": "quantlab",
    "ort-minmax": "ONNX Runtime MinMax",
    "ort-entropy": "ONNX Runtime Entropy, 128 bins",
    "ort-entropy-2048": "ONNX Runtime Entropy, 2048 bins",
}
RUNS = {"ort-entropy-2048": 1}
"""Processes, where one takes long; 3 elsewhere."""


def figures() -> Iterator[Figure]:
    """Yield the ratio of the peaks with many batches and with few."""
    _child("quantlab", FEW)  # compiles the kernels, which takes memory, once for all that follow
    peaks: dict[int, list[float]] = {FEW: [], MOST: []}
    for _ in range(REPEATS):
        for batches, found in peaks.items():
            found.append(_child("quantlab", batches).peak_bytes)
    value, low, high = ratio(peaks[MOST], peaks[FEW])
    yield Figure(
        name=f"peak memory of calibration, {MOST} batches / {FEW} batches",
        value=value,
        unit="x",
        low=low,
        high=high,
        how=f"peak resident memory of fresh processes, batches of {BATCH}; ratio of medians over "
        f"{REPEATS} pairs; spread is that of the pairs",
        at_most=LIMIT,
    )


def costs() -> Iterator[Cost]:
    """Yield what each calibration of the same images costs."""
    for work, name in NAMES.items():
        runs = [_child(work, MOST) for _ in range(RUNS.get(work, 3))]
        yield Cost(
            name=name,
            tensors=runs[0].tensors,
            seconds=statistics.median(run.seconds for run in runs),
            cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
            peak_bytes=int(statistics.median(run.peak_bytes for run in runs)),
            grown_bytes=int(statistics.median(run.grown_bytes for run in runs)),
            runs=len(runs),
        )


def _child(work: str, batches: int) -> Cost:
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", work, str(Path(folder)), str(batches)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return Cost(name=work, runs=1, **json.loads(done.stdout.splitlines()[-1]))
