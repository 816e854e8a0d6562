"""Time that each method takes for a threshold, on the real histograms of the ResNet."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.figures import Figure
from benchmarks.material import Material
from quantlab.calibrators import CALIBRATORS
from quantlab.calibrators.base import Calibrator
from quantlab.histogram import Histogram

LIMITS = {"entropy": 2.0}
REPEATS = 9


def figures(material: Material) -> Iterator[Figure]:
    """Yield, for each method, the median time of its slowest tensor."""
    found = material.collect(material.dataset(), size=material.config.calibration.batch)
    names = tuple(found.histograms)
    histograms = {
        name: replace(histogram, batch_amax=found.batch_amax[:, names.index(name)])
        for name, histogram in found.histograms.items()
    }
    for name in CALIBRATORS:
        calibrator = material.calibrator(name)
        times = [_milliseconds(calibrator, histogram) for histogram in histograms.values()]
        yield Figure(
            name=f"{name} threshold, slowest tensor",
            value=max(times),
            unit="ms",
            low=min(times),
            high=max(times),
            how=f"median of {REPEATS} after a warm-up; spread is over {len(times)} tensors",
            at_most=LIMITS.get(name),
        )


def _milliseconds(calibrator: Calibrator, histogram: Histogram) -> float:
    calibrator.threshold(histogram)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        calibrator.threshold(histogram)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)
