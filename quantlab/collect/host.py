"""Collect activations on this machine's CPU with ONNX Runtime, one batch in memory at a time.

The model runs with the needed tensors as its outputs; each batch's activations are counted into
their accumulators, on as many threads as the machine has cores, and dropped before the next batch.
"""

import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.collect.accumulator import Accumulator
from quantlab.datasets.base import Array, Batch
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.engines.host import usable_cores
from quantlab.engines.ort_session import run, session
from quantlab.errors import CalibrationError, EngineError
from quantlab.histogram import Histogram
from quantlab.progress import Advance


@dataclass(frozen=True, slots=True)
class Collected:
    """How one pass over the calibration samples went.

    Attributes:
        samples: how many were counted.
        batch: samples an inference.
        seconds: wall time of the pass.
        inference_seconds: part of it spent in the model.
        peak_rss_bytes: largest resident memory of the process so far.
        data_hash: SHA-256 over the samples, independent of their order.
        skipped: samples that the dataset left out, with the reason.
    """

    samples: int
    batch: int
    seconds: float
    inference_seconds: float
    peak_rss_bytes: int
    data_hash: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """What the pass gave: histograms by tensor, in the order asked for, and how it went."""

    histograms: Mapping[str, Histogram]
    how: Collected


def collect(
    tapped: Path,
    batches: Iterable[Batch],
    tensors: Sequence[str],
    *,
    threads: int | None = None,
    advance: Advance = lambda _: None,
) -> Collection:
    """Run every batch and return the histograms of ``tensors``.

    Args:
        tapped: ONNX model whose outputs include ``tensors`` other than its inputs (graph.tap).
        batches: samples that fit the model's inputs.
        tensors: names of activations, or of inputs.
        threads: for inference and for counting; every core that this process may use if None.
        advance: called after each batch with the number of samples done so far.

    Raises:
        EngineError: the model cannot be run on a batch.
        CalibrationError: there was no batch.
    """
    workers = threads or usable_cores()
    model = session(tapped, threads=workers, tapped=True)
    inputs = {i.name for i in model.get_inputs()}
    outputs = [name for name in tensors if name not in inputs]
    accumulators = {name: Accumulator(name) for name in tensors}
    fingerprint = Fingerprint()
    samples, largest, inference = 0, 0, 0.0
    started = time.perf_counter()
    with ThreadPoolExecutor(workers, thread_name_prefix="histogram") as pool:
        for batch in batches:
            before = time.perf_counter()
            found = _activations(model, outputs, batch)
            inference += time.perf_counter() - before
            found |= {name: batch.arrays[name] for name in tensors if name in inputs}
            jobs = [
                pool.submit(accumulators[name].add, values, batch.indices)
                for name, values in found.items()
            ]
            fingerprint.add(batch)
            for job in jobs:
                job.result()
            found.clear()  # before the next batch is read and run, so that two are never held
            samples += batch.size
            largest = max(largest, batch.size)
            advance(samples)
    if samples == 0:
        raise CalibrationError("no calibration sample was read; the dataset is empty")
    how = Collected(
        samples=samples,
        batch=largest,
        seconds=time.perf_counter() - started,
        inference_seconds=inference,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        data_hash=fingerprint.hexdigest(),
    )
    return Collection({name: accumulators[name].histogram() for name in tensors}, how)


def _activations(model: Any, outputs: Sequence[str], batch: Batch) -> dict[str, Array]:
    if not outputs:  # which would mean every output to ONNX Runtime
        return {}
    try:
        return run(model, outputs, batch.arrays)
    except EngineError as error:
        raise EngineError(f"calibration, {batch}: {error}") from error


def check_finite(histograms: Iterable[Histogram], batch: int) -> None:
    """Raise CalibrationError naming tensor, batch and sample of the first NaN or infinity.

    Args:
        histograms: in graph order, so that the first is where it began.
        batch: the batch size that was run, to name the batch.
    """
    for histogram in histograms:
        for kind, first, number in (
            ("NaN", histogram.first_nan, histogram.nans),
            ("infinite", histogram.first_inf, histogram.infs),
        ):
            if first is not None:
                raise CalibrationError(
                    f"tensor {histogram.tensor!r}: {number} elements are {kind}, first in sample "
                    f"{first} (batch {first // batch}); repair the sample or the model, or set "
                    "'calibration.nonfinite: ignore' to calibrate on the finite elements"
                )
