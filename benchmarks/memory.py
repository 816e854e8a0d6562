"""Peak memory of calibration, and ONNX Runtime's calibrators beside it, in fresh processes."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from benchmarks.figures import Cost, Figure, ratio
from benchmarks.material import ROOT

MOST, FEW = 64, 4
"""Batches."""

SMALL, LARGE = 8, 32
"""Samples a batch."""

LIMIT = 1.02
TAPPED_LIMIT = 1.15
REPEATS = 5

NAMES = {
    "plain": "plain inference",
    "tapped": "plain inference with the same taps",
    "quantlab": "quantlab",
    "ort-minmax": "ONNX Runtime MinMax",
    "ort-entropy": "ONNX Runtime Entropy, 128 bins",
    "ort-entropy-2048": "ONNX Runtime Entropy, 2048 bins",
}
RUNS = {"ort-entropy-2048": 1}
"""Processes, where one takes long; 3 elsewhere."""


def figures() -> Iterator[Figure]:
    """Yield the ratios of the peaks: many batches to few, and to plain inference with taps."""
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
        how=f"peak resident memory of fresh processes, batches of {SMALL}; ratio of medians over "
        f"{REPEATS} pairs; spread is that of the pairs",
        at_most=LIMIT,
    )
    works: dict[str, list[float]] = {"quantlab": [], "tapped": []}
    for _ in range(REPEATS):
        for work, found in works.items():
            found.append(_child(work, MOST * SMALL // LARGE, LARGE).peak_bytes)
    value, low, high = ratio(works["quantlab"], works["tapped"])
    yield Figure(
        name="peak memory of calibration / plain inference with the same taps",
        value=value,
        unit="x",
        low=low,
        high=high,
        how=f"as above, {MOST * SMALL} images in batches of {LARGE}",
        at_most=TAPPED_LIMIT,
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


def _child(work: str, batches: int, size: int = SMALL) -> Cost:
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", work, folder, str(batches), str(size)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return Cost(name=work, runs=1, **json.loads(done.stdout.splitlines()[-1]))
