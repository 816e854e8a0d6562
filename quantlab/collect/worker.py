"""A worker: does units one after another and hands out their parts.

One thread reads samples, in order, and cuts their batches into slices; as many as there are lanes
run them.  No more slices wait than there are lanes, so that memory does not depend on the number
of samples.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from queue import SimpleQueue
from typing import Self

import numpy as np
from numpy.typing import NDArray

from quantlab.collect import memory
from quantlab.collect.lane import Lane, Ranges
from quantlab.collect.work import Part, Unit, Work
from quantlab.datasets.base import Array, Batch, Sample, Samples
from quantlab.datasets.batching import batches
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.errors import CalibrationError, DataError, EngineError
from quantlab.histogram import merge
from quantlab.progress import Advance

OpenLanes = Callable[[Work, tuple[str, ...]], Sequence[Lane]]
"""Opens the model with these tensors as outputs."""


class Worker:
    """Keeps the dataset and one pass's lanes open between units."""

    def __init__(self, work: Work, lanes: OpenLanes, advance: Advance = lambda _: None) -> None:
        """Make a worker.

        Args:
            work: what to do.
            lanes: opens the lanes of a pass.
            advance: called with the number of samples that were done since the last call.
        """
        self._work = work
        self._open_lanes = lanes
        self._advance = advance
        self._lanes: Sequence[Lane] = ()
        self._round: int | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open the dataset.

        Raises:
            DataError: it cannot be opened, or is shorter than it was.
        """
        samples = self._stack.enter_context(self._work.dataset.open(self._work.inputs))
        if len(samples) < self._work.samples:
            raise DataError(
                f"expected {self._work.samples} places or more in the dataset, as when the work "
                f"was cut, got {len(samples)}; give every worker the same data"
            )
        self._samples = samples
        self._shards = Shards(samples, size=self._work.shard, stop=self._work.samples)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the dataset and the lanes."""
        self._lanes = ()
        self._stack.close()

    def part(self, unit: Unit) -> Part:
        """Do one unit.

        Raises:
            DataError: the samples cannot be read.
            EngineError: the model cannot be opened, or run on a batch.
            CalibrationError: memory does not suffice.
        """
        work = self._work
        tensors = work.passes[unit.round]
        if unit.round != self._round:
            if self._lanes:  # before the next session is made: two are never held
                self._lanes = ()
                memory.release()
            self._lanes = self._open_lanes(work, tensors)
            self._round = unit.round
        start, stop = work.places(unit.shard)
        found = batches(
            self._shards.read(unit.shard),
            work.inputs,
            size=work.batch,
            count=stop - start,
            empty_ok=True,
        )
        first, amax, fingerprint = self._run(found, len(tensors))
        seconds = sum(lane.seconds for lane in self._lanes) / len(self._lanes)
        taken = [lane.take() for lane in self._lanes]
        return Part(
            unit=unit,
            samples=int(sum(len(indices) for indices in first)),
            histograms={name: merge([lane[name] for lane in taken]) for name in tensors},
            first=np.array([indices[0] for indices in first], np.int64),
            amax=np.array(amax, np.float64).reshape(len(first), len(tensors)),
            fingerprint=fingerprint.total,
            skipped=tuple(self._samples.skipped),
            inference_seconds=seconds,
            peak_bytes=memory.peak(),
        )

    def _run(
        self, found: Iterable[Batch], tensors: int
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]], Fingerprint]:
        """Run batches on the lanes; return each one's samples and maxima, and their fingerprint."""
        indices: list[NDArray[np.int64]] = []
        amax: list[NDArray[np.float64]] = []
        fingerprint = Fingerprint()
        free: SimpleQueue[Lane] = SimpleQueue()
        for lane in self._lanes:
            free.put(lane)
        waiting: deque[tuple[int, int, Future[Ranges]]] = deque()

        def run(batch: Batch) -> Ranges:
            lane = free.get()
            try:
                return lane.run(batch.arrays, batch.indices)
            except EngineError as error:
                raise EngineError(f"calibration, {batch}: {error}") from error
            finally:
                free.put(lane)

        def finish() -> None:
            number, size, future = waiting.popleft()
            ranges = future.result()()
            largest = np.maximum(-ranges[:, 0], ranges[:, 1])
            amax[number] = np.maximum(amax[number], largest)
            self._advance(size)

        with ThreadPoolExecutor(len(self._lanes), thread_name_prefix="lane") as pool:
            try:
                for number, batch in enumerate(found):
                    indices.append(batch.indices)
                    amax.append(np.full(tensors, -np.inf))
                    for part in slices(batch, self._work.slice):
                        waiting.append((number, part.size, pool.submit(run, part)))
                        if len(waiting) > len(self._lanes):
                            finish()
                    fingerprint.add(batch)
                while waiting:
                    finish()
            finally:
                for _, _, future in waiting:
                    future.cancel()
        return indices, amax, fingerprint


class Shards:
    """The samples of shards; consecutive ones come from a single pass over the dataset."""

    def __init__(self, samples: Samples, *, size: int, stop: int) -> None:
        self._samples = samples
        self._size = size
        self._stop = stop
        self._next: int | None = None

    def read(self, shard: int) -> Iterator[Sample]:
        """Return the samples of a shard; those of the last one must have been read to the end."""
        if shard != self._next:
            rest = self._samples.part(shard * self._size, self._stop)
            self._groups = groupby(rest, key=lambda sample: sample.index // self._size)
            self._head = next(self._groups, None)
        self._next = shard + 1
        if self._head is None or self._head[0] != shard:  # every sample of it was skipped
            return
        yield from self._head[1]
        self._head = next(self._groups, None)


def slices(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into slices of at most ``size``; one of a single sample has no axis to cut."""
    if batch.size <= size:
        yield batch
        return
    for start in range(0, batch.size, size):
        cut = slice(start, start + size)
        arrays: dict[str, Array] = {name: array[cut] for name, array in batch.arrays.items()}
        yield Batch(arrays, None, batch.indices[cut])


def host_lanes(work: Work, tensors: tuple[str, ...]) -> Sequence[Lane]:
    """Open lanes on the CPU."""
    from quantlab.collect.lane import HostLane
    from quantlab.engines.ort_session import session
    from quantlab.graph.tap import tapped

    with tapped(work.model, tensors, work.tensors) as model:
        opened = session(model, threads=work.threads, tapped=True)
    try:
        return [HostLane(opened, tensors, work.shapes, work.slice) for _ in range(work.lanes)]
    except MemoryError as error:
        raise CalibrationError(
            f"no memory for the activations of {work.lanes} slices of {work.slice} samples "
            f"({error}); set 'calibration.max_memory' to what this machine has"
        ) from error
