"""Calibration against plain inference over the same batches, in one process, in turns.

Calibration is what a run does: collect, which opens its session, and decide.  Plain inference opens
a session of ONNX Runtime on the same model, without taps, and runs every batch.  The batches are in
memory for both.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.figures import Figure, ratio
from benchmarks.material import Material, Stored
from quantlab.datasets.base import Batch
from quantlab.engines.ort_session import session

LIMIT = 1.25
REPEATS = 9


def figures(resnet: Material, mobilenet: Material) -> Iterator[Figure]:
    """Yield the wall-time ratios."""
    size = resnet.config.calibration.batch
    yield _figure("ResNet", resnet, size=size, limit=LIMIT)
    yield _figure("ResNet", resnet, size=8, limit=LIMIT)
    yield _figure("MobileNet", mobilenet, size=size, limit=None)


def _figure(network: str, material: Material, *, size: int, limit: float | None) -> Figure:
    stored = material.stored()
    batches = stored.batches(material.inputs, size)
    works = [
        lambda: infer(material.prepared, batches),
        lambda: calibrate(material, stored, size),
    ]
    plain, calibration = timed(works)
    value, low, high = ratio(calibration, plain)
    return Figure(
        name=f"{network}: calibration / plain inference, {len(stored.samples)} images, "
        f"batch {size}",
        value=value,
        unit="x",
        low=low,
        high=high,
        how=f"ratio of median wall times over {REPEATS} turns; spread is that of the pairs",
        at_most=limit,
    )


def infer(model: Path, batches: Sequence[Batch]) -> None:
    """Run a model over the batches."""
    plain = session(model)
    for batch in batches:
        plain.run(None, dict(batch.arrays))


def calibrate(material: Material, stored: Stored, size: int) -> None:
    """Collect and decide."""
    material.decide(material.collect(stored, size=size).histograms)


def timed(works: Sequence[Callable[[], None]]) -> list[list[float]]:
    """Return the wall seconds of each work, run in turns after one turn that is not timed."""
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(REPEATS + 1):
        for work, times in zip(works, seconds, strict=True):
            started = time.perf_counter()
            work()
            if turn:
                times.append(time.perf_counter() - started)
    return seconds
