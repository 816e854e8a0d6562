"""What further methods cost once a run is calibrated, and the entropy search at its hardest."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure
from quantlab import pipeline
from quantlab.calibrators import CALIBRATORS, Entropy
from quantlab.histogram import BINS, from_array
from quantlab.runfolder import RunFolder
from quantlab.variants import try_methods
from tests.recorded import Recipe, recorded

TWELVE = (
    *("mse", "minmax", "minmax_mean", "minmax_mean:averaging_constant=0.01"),
    *("entropy", "entropy:zero_bin=count", "entropy:levels=255"),
    *(f"percentile:percentile={p}" for p in (99, 99.9, 99.99, 99.999, 99.9999)),
)
"""Methods tried from one collection."""

TENSORS = 200
"""Of the run folder that a fresh process reads."""

REPEATS = 5
PROCESSES = 7
SEARCHES = 101


def figures(config: Path, folder: Path) -> Iterator[Figure]:
    """Yield the figures.

    Args:
        config: of the network that is calibrated.
        folder: empty, to work in.
    """
    yield _twelve(config, folder)
    yield _process(folder)
    yield _search()


def _twelve(config: Path, folder: Path) -> Figure:
    """Compare one collection and twelve decisions with one collection and one."""
    ratios = []
    for turn in range(REPEATS + 1):  # the first one loads the kernels and is not counted
        run = pipeline.calibrate(config, output=folder / f"run{turn}").parent
        collecting = RunFolder(run).seconds()["collect"]
        one = _seconds(partial(try_methods, run, TWELVE[:1]))
        twelve = _seconds(partial(try_methods, run, TWELVE))
        ratios.append((collecting + twelve) / (collecting + one))
    return Figure(
        name="calibration with 12 methods / with one",
        value=statistics.median(ratios[1:]),
        unit="x",
        low=min(ratios[1:]),
        high=max(ratios[1:]),
        how=f"collecting and deciding, caches and tables written; median of {REPEATS}",
        at_most=1.1,
    )


def _process(folder: Path) -> Figure:
    """Time ``quantlab calibrate --from`` from start to exit."""
    run = recorded(folder / "recorded", Recipe(tensors=TENSORS))
    command = [Path(sys.executable).with_name("quantlab"), "calibrate", "--from", run]
    work = partial(subprocess.run, command, capture_output=True, check=True)
    times = [_seconds(work) for _ in range(PROCESSES + 1)][1:]
    return Figure(
        name=f"calibrate --from, {TENSORS} tensors, {len(CALIBRATORS)} methods, whole process",
        value=statistics.median(times),
        unit="s",
        low=min(times),
        high=max(times),
        how=f"median of {PROCESSES} processes after one that is not counted",
        at_most=2.0,
    )


def _search() -> Figure:
    """Time the search of every candidate where every bin is filled."""
    values = (np.arange(100 * BINS) + 0.5) / (100 * BINS)
    histogram = from_array("t", np.append(values, values[: 50 * BINS] / 2))
    entropy = Entropy()
    entropy.threshold(histogram)
    times = [1000 * _seconds(partial(entropy.threshold, histogram)) for _ in range(SEARCHES)]
    return Figure(
        name=f"entropy threshold, {histogram.used} filled bins",
        value=statistics.median(times),
        unit="ms",
        low=min(times),
        high=max(times),
        how=f"median of {SEARCHES} after a warm-up, one thread; spread is least and largest",
        at_most=2.0,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
