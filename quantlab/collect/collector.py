"""Collect: let an executor do what is not done yet, merge it, and write checkpoints on the way."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.collect import memory
from quantlab.collect.executor import Executor
from quantlab.collect.gather import Collected, Gathered
from quantlab.collect.work import Work
from quantlab.collect.worker import Shards
from quantlab.datasets.batching import batches
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.errors import CalibrationError
from quantlab.histogram import Histogram
from quantlab.progress import Advance

SHARE = 20
"""A checkpoint is written when this many times what the last one took has passed: at most 5 % of
the time goes there, however often parts arrive."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What was collected.

    Attributes:
        histograms: by tensor, in the order asked for.
        first: (batches,) int64, each batch's first sample.
        batch_amax: (batches, tensors) float64, largest finite magnitude; -inf where none.
        how: how it went.
    """

    histograms: Mapping[str, Histogram]
    first: NDArray[np.int64]
    batch_amax: NDArray[np.float64]
    how: Collected


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a checkpoint is kept, and what it depends on."""

    path: Path
    key: Mapping[str, Any]


def collect(
    work: Work,
    executor: Executor,
    *,
    gathered: Gathered | None = None,
    checkpoint: Checkpoint | None = None,
    advance: Advance = lambda _: None,
) -> Collection:
    """Do all units of ``work`` that are not in ``gathered``.

    Args:
        work: what to collect.
        executor: does it.
        gathered: what was collected before; added to.
        checkpoint: where to keep what was done; not kept if not given.
        advance: called with the number of samples done so far, in all passes together.

    Raises:
        CalibrationError: there was no sample.
        QuantlabError: what kept a unit from being done; the checkpoint stays.
    """
    found = gathered or Gathered(work.passes)
    done = sum(stop - start for start, stop in (work.places(unit.shard) for unit in found.done))
    before, saved, cost = found.seconds, 0.0, 0.0
    memory.forget_peak()
    started = time.perf_counter()

    def advanced(samples: int) -> None:
        nonlocal done
        done += samples
        advance(done)

    todo = [unit for unit in work.units if unit not in found.done]
    kept, whole = len(found.done), True
    try:
        for part in executor.parts(work, todo, advanced):
            whole = False
            found.add(part)
            whole = True
            elapsed = time.perf_counter() - started
            found.seconds = before + elapsed
            unfinished = len(found.done) < len(work.units)
            if checkpoint and unfinished and elapsed - saved >= SHARE * cost:
                found.save(checkpoint.path, checkpoint.key)
                kept = len(found.done)
                saved = time.perf_counter() - started
                cost = saved - elapsed
    except BaseException:  # Ctrl-C among them
        if checkpoint and whole and len(found.done) > kept:
            found.save(checkpoint.path, checkpoint.key)
        raise
    if found.samples == 0:
        raise CalibrationError("no calibration sample was read; the dataset is empty")
    first, amax = found.batch_amax()
    return Collection(found.histograms(), first, amax, _how(work, executor, found))


def _how(work: Work, executor: Executor, found: Gathered) -> Collected:
    return Collected(
        samples=found.samples,
        batch=work.batch,
        seconds=found.seconds,
        inference_seconds=found.inference_seconds,
        peak_rss_bytes=found.peak_bytes,
        data_hash=found.data_hash(),
        skipped=found.skipped,
        passes=len(work.passes),
        expected_peak_bytes=work.expected_peak_bytes,
        executor=executor.name,
    )


def check_unchanged(work: Work, gathered: Gathered) -> None:
    """Read the samples of the shards that are done, and check that they are what was counted.

    Raises:
        CalibrationError: they are not.
    """
    with work.dataset.open(work.inputs) as samples:
        shards = Shards(samples, size=work.shard, stop=work.samples)
        for unit, total in sorted(gathered.done.items()):
            if unit.round:
                continue
            found = Fingerprint()
            start, stop = work.places(unit.shard)
            part = shards.read(unit.shard)
            for batch in batches(
                part, work.inputs, size=work.batch, count=stop - start, empty_ok=True
            ):
                found.add(batch)
            if found.total != total:
                raise CalibrationError(
                    f"samples {start} to {stop - 1} are not those that the checkpoint counted; "
                    "restore them, or delete the checkpoint to collect anew"
                )
