"""Histograms of tensors on the GPU, equal to ``histogram.merge`` of ``from_array``, bit for bit.

Everything is queued on the device's stream.  Counts are 64-bit on the device and the bins' widths
are its own business, so nothing comes back but each batch's extremes and, in the end, the counts:
32 KiB a tensor.  What the kernels do is described in ``kernels.cu``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.cuda.device import Device
from quantlab.cuda.layout import (
    BLOCKS,
    KINDS,
    NO_SAMPLE,
    START,
    STATE,
    TABLE,
    TENSOR,
    THREADS,
    TILE,
)
from quantlab.cuda.staging import Staging
from quantlab.histogram import BINS, Histogram

Ranges = Callable[[], NDArray[np.float64]]
"""Waits for the GPU and returns (tensors, 2): each one's finite minimum and maximum in a batch."""

UNREAD = 16
"""Batches whose extremes may wait for being read."""


@dataclass(frozen=True, slots=True)
class View:
    """A tensor in device memory.

    Attributes:
        address: of its first element; elements lie one after the other.
        shape: of the tensor; axis 0 is the batch if it is as long as the batch.
        dtype: one of KINDS.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str


class Counter:
    """Mutable on purpose: counts live on the device until they are taken.

    Args:
        device: where the tensors are.
        tensors: their names.
    """

    def __init__(self, device: Device, tensors: Sequence[str]) -> None:
        self._device = device
        self._tensors = tuple(tensors)
        number = max(len(self._tensors), 1)
        cuda = device.cuda
        with device.current():
            self._count = device.function("count", "PIQPPP")
            self._rest = device.function("rest", "PIQPPP")
            self._settle = device.function("settle", "PPP")
            self._counts = cuda.mem_alloc(number * BINS * 8)
            self._states = cuda.mem_alloc(number * STATE.itemsize)
            self._views, self._samples = Staging(device), Staging(device)
            self._unread = [_Extremes(device, number) for _ in range(UNREAD)]
            self._turn = 0
            self._start()

    def add(self, views: Sequence[View], samples: NDArray[np.int64]) -> Ranges:
        """Queue the counting of a batch; what ``views`` show must stay until the stream got there.

        Args:
            views: one a tensor, in the order of ``tensors``.
            samples: (batch,) each sample's index.  A NaN is attributed to a sample if axis 0 of
                its tensor is the batch axis, else to the batch's first sample.

        Returns: a function that waits and returns the batch's extremes, +inf and -inf where there
            was no finite element.
        """
        if not views:
            return lambda: np.empty((0, 2))
        self._turn = (self._turn + 1) % UNREAD
        extremes = self._unread[self._turn]
        with self._device.current():
            ranges = extremes.next()
            table, tiles = described(views, len(samples))
            tensors, owners = self._views.put(table), self._samples.put(samples)
            self._sizes += table["size"].astype(np.int64)
            stream, block = self._device.stream, (THREADS, 1, 1)
            states, counts = self.memory
            work = (tensors, len(views), tiles, owners, states, counts)
            full, one_each = (BLOCKS * self._device.multiprocessors, 1), (len(views), 1)
            self._count.prepared_async_call(full, block, stream, *work, shared_size=TABLE)
            self._settle.prepared_async_call(
                one_each, block, stream, states, counts, extremes.address
            )
            self._rest.prepared_async_call(full, block, stream, *work, shared_size=TABLE)
            extremes.done.record(stream)
        return ranges

    @property
    def memory(self) -> tuple[int, int]:
        """Addresses of the states (layout.STATE) and the counts (tensors, BINS) on the device."""
        return int(self._states), int(self._counts)

    def take(self) -> dict[str, Histogram]:
        """Return what was counted since the last ``take``, and start anew; waits for the device."""
        number = len(self._tensors)
        counts = np.empty((number, BINS), np.int64)
        states = np.empty(number, STATE)
        sizes = self._sizes
        with self._device.current():
            self._device.stream.synchronize()
            if number:
                self._device.cuda.memcpy_dtoh(counts, self._counts)
                self._device.cuda.memcpy_dtoh(states, self._states)
            self._start()
        return {
            name: _histogram(name, counts[i], states[i], int(sizes[i]))
            for i, name in enumerate(self._tensors)
        }

    def _start(self) -> None:
        number = len(self._tensors)
        self._sizes = np.zeros(number, np.int64)
        if number:
            start = np.full(number, np.array(START, STATE))
            self._device.cuda.memset_d8(self._counts, 0, number * BINS * 8)
            self._device.cuda.memcpy_htod(self._states, start)


class _Extremes:
    """Host memory that the device writes a batch's extremes into."""

    def __init__(self, device: Device, tensors: int) -> None:
        cuda = device.cuda
        flags = cuda.host_alloc_flags.DEVICEMAP
        self._values = cuda.pagelocked_empty((tensors, 2), np.float32, mem_flags=flags)
        self._device = device
        self.address = int(self._values.base.get_device_pointer())
        self.done: Any = cuda.Event(cuda.event_flags.DISABLE_TIMING)
        self._last: Ranges | None = None

    def next(self) -> Ranges:
        """Return a function that reads the next batch's, after saving those of the last one."""
        if self._last is not None:
            self._last()
        # Not self, which holds the function: what CUDA gave must not wait for the cycle collector,
        # which runs on any thread.
        device, done, values = self._device, self.done, self._values

        @cache
        def ranges() -> NDArray[np.float64]:
            with device.current():
                done.synchronize()
            found: NDArray[np.float64] = values.astype(np.float64) + 0.0  # no -0.0
            return found

        self._last = ranges
        return ranges


def described(views: Sequence[View], batch: int) -> tuple[NDArray[np.void], int]:
    """Return the kernels' table of ``views`` and its number of tiles."""
    table = np.zeros(len(views), TENSOR)
    tiles = 0
    for row, view in zip(table, views, strict=True):
        size = int(np.prod(view.shape, dtype=np.int64))
        batched = bool(view.shape) and view.shape[0] == batch
        row["data"], row["size"], row["kind"] = view.address, size, KINDS[view.dtype]
        row["per_sample"] = max(size // batch if batched else size, 1)
        row["first_tile"] = tiles
        tiles += -(-size // TILE)
    return table, tiles


def _histogram(name: str, counts: NDArray[np.int64], state: np.void, size: int) -> Histogram:
    """Return a tensor's histogram; its zeros are the elements that were not counted otherwise."""
    nans, infs = int(state["nans"]), int(state["infs"])
    zeros = size - nans - infs - int(counts.sum())
    counts = counts.copy()
    counts[0] += zeros
    return Histogram(
        tensor=name,
        counts=counts,
        exponent=int(state["exponent"]),
        minimum=float(state["least"]),
        maximum=float(state["most"]),
        zeros=zeros,
        nans=nans,
        infs=infs,
        first_nan=_sample(state["first_nan"]),
        first_inf=_sample(state["first_inf"]),
    )


def _sample(found: np.uint64) -> int | None:
    return None if int(found) == NO_SAMPLE else int(found)
