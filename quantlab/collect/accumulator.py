"""Histograms that grow: activations in, batch by batch.

``Accumulators`` equals ``merge`` of ``from_array`` over the same arrays, bit for bit, at the speed
of the compiled kernel and without a temporary of the activation's size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.collect.kernel import BLOCK, count, count_all, scratch
from quantlab.histogram import BINS, MIN_EXPONENT, Histogram, coarsen, exponent_for

CONVERTED = 1 << 20
"""Elements of a type that the kernel does not read that are converted at a time."""

LARGEST_CALL = 1 << 30
"""Elements a kernel call: its inner tables count in 32 bits."""

Floats = NDArray[Any]
"""float32 or float64."""

NEVER = np.iinfo(np.int64).max
"""Sample index that stands for "none"."""


@dataclass(frozen=True, slots=True, eq=False)
class Owners:
    """Whose an element is, by its place among all elements.

    Attributes:
        samples: that share the axis equally.
        length: of the axis.
        inner: elements from one place on the axis to the next.
    """

    samples: NDArray[np.int64]
    length: int
    inner: int

    def of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sample of each place."""
        along = places // self.inner % self.length
        found: NDArray[np.int64] = self.samples[along * len(self.samples) // self.length]
        return found


def owners(shape: tuple[int, ...], samples: NDArray[np.int64], axis: int | None) -> Owners:
    """Return whose the elements of a tensor are; see ``Accumulators.add``."""
    if axis is None or axis >= len(shape) or shape[axis] == 0 or shape[axis] % len(samples):
        return Owners(samples[:1], 1, 1)
    return Owners(samples, shape[axis], math.prod(shape[axis + 1 :]))


class Accumulators:
    """The counts of several tensors.

    Mutable on purpose, and one thread's: it lives for one collection and hands out frozen
    Histograms.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        self._tensors = tuple(tensors)
        self._scratch = scratch()
        self._start()

    def _start(self) -> None:
        n = len(self._tensors)
        self._counts = np.zeros((n, BINS), np.int64)
        self._exponents = [MIN_EXPONENT] * n
        self._inverses = np.full(n, _inverse(MIN_EXPONENT, np.float32), np.float32)
        self._totals = _nothing(n)
        self._seen = _nothing(n)
        self._bad = np.zeros((n, 2), np.int64)  # NaN, infinite
        self._first_bad = np.full((n, 2), NEVER, np.int64)

    def add(
        self,
        tensor: int,
        values: NDArray[np.generic],
        samples: NDArray[np.int64],
        axis: int | None = 0,
    ) -> None:
        """Count an activation of the tensor with that number.

        Args:
            tensor: place in ``tensors``.
            values: any shape; float16, bfloat16, float32, float64, or integers.
            samples: (batch,) each sample's index.
            axis: of ``values`` that the samples share equally, to tell whose a NaN is; where it is
                None, or does not divide, that is the first sample.
        """
        flat = np.ascontiguousarray(values).reshape(-1)
        self._add_flat(tensor, flat, 0, owners(values.shape, samples, axis))

    def add_buffer(
        self,
        buffer: NDArray[np.float32],
        places: NDArray[np.int64],
        views: Sequence[NDArray[np.float32]],
        samples: NDArray[np.int64],
        axes: Sequence[int | None],
    ) -> None:
        """Count the first ``len(views)`` tensors, which lie in one buffer, in one kernel call.

        Args:
            buffer: (n,) float32.
            places: (len(views), 2) int64, each tensor's first element and number of elements.
            views: the same parts of the buffer in the tensors' shapes.
            samples: (batch,) each sample's index.
            axes: of each view, as in ``add``.
        """
        floats = (buffer, buffer.view(np.int32))
        totals = (self._counts, self._seen)
        tensor = 0
        while tensor < len(views):
            tensor, stop = count_all(floats, places, tensor, self._inverses, totals, self._scratch)
            if tensor < len(views):
                flat, shape = views[tensor].reshape(-1), views[tensor].shape
                self._add_flat(tensor, flat, stop, owners(shape, samples, axes[tensor]))
                tensor += 1

    def ranges(self) -> NDArray[np.float64]:
        """Return (tensors, 2) finite minimum and maximum since the last call; inf, -inf if none."""
        found = self._seen[:, :2].copy()
        self._totals[:, 0] = np.minimum(self._totals[:, 0], found[:, 0])
        self._totals[:, 1] = np.maximum(self._totals[:, 1], found[:, 1])
        self._totals[:, 2] += self._seen[:, 2]
        self._seen = _nothing(len(self._tensors))
        return found

    def take(self) -> dict[str, Histogram]:
        """Return what was counted since the last call, by tensor, and start anew."""
        self.ranges()
        found = {
            name: Histogram(
                tensor=name,
                counts=self._counts[i].copy(),
                exponent=self._exponents[i],
                minimum=float(self._totals[i, 0]),
                maximum=float(self._totals[i, 1]),
                zeros=int(self._totals[i, 2]),
                nans=int(self._bad[i, 0]),
                infs=int(self._bad[i, 1]),
                first_nan=_sample(self._first_bad[i, 0]),
                first_inf=_sample(self._first_bad[i, 1]),
            )
            for i, name in enumerate(self._tensors)
        }
        self._start()
        return found

    def _add_flat(
        self,
        tensor: int,
        flat: NDArray[np.generic],
        start: int,
        owned: Owners,
    ) -> None:
        """Count ``flat[start:]``."""
        native = flat.dtype in (np.float32, np.float64)
        step = LARGEST_CALL if native else CONVERTED
        for begin in range(start, flat.size, step):
            part = flat[begin : begin + step]
            floats: Floats = part if native else part.astype(np.float64)
            position = 0
            while position < floats.size:
                position = self._count(tensor, floats, position)
                if position < floats.size:
                    # Rare: a value outside the bins, not finite, too small for float32's inverse.
                    block = floats[position : position + BLOCK]
                    self._add_strange(tensor, block, begin + position, owned)
                    position += block.size

    def _count(self, tensor: int, values: Floats, start: int) -> int:
        """Count on from ``start`` with the kernel; return where it stopped."""
        inverse = _inverse(self._exponents[tensor], values.dtype.type)
        bits = values.view(np.int32) if values.dtype == np.float32 else values.view(np.int64)
        totals = self._counts[tensor], self._seen[tensor]
        return int(count((values, bits), start, inverse, *totals, self._scratch))

    def _add_strange(
        self,
        tensor: int,
        block: Floats,
        offset: int,
        owned: Owners,
    ) -> None:
        """Widen the bins to hold a block's finite values, count them, and note the others."""
        finite = block[np.isfinite(block)].astype(np.float64)
        exponent = exponent_for(float(np.abs(finite).max(initial=0.0)))
        wider = exponent - self._exponents[tensor]
        if wider > 0:
            self._counts[tensor] = coarsen(self._counts[tensor], wider)
            self._exponents[tensor] = exponent
            self._inverses[tensor] = _inverse(exponent, np.float32)
        self._count(tensor, finite, 0)
        for kind, bad in enumerate((np.isnan(block), np.isinf(block))):
            places = np.flatnonzero(bad)
            if places.size:
                sample = owned.of(offset + places).min()
                self._bad[tensor, kind] += places.size
                self._first_bad[tensor, kind] = min(self._first_bad[tensor, kind], sample)


def _inverse(exponent: int, kind: type[np.floating]) -> np.floating:
    """Return ``2**-exponent``; infinite if float32 cannot hold it.

    That puts every value outside the bins, so that float64 counts it.
    """
    inverse = math.ldexp(1.0, -exponent)
    return kind(inverse if inverse <= float(np.finfo(kind).max) else math.inf)


def _nothing(tensors: int) -> NDArray[np.float64]:
    """Return (tensors, 3): minimum, maximum and number of zeros of no elements."""
    return np.tile(np.array([math.inf, -math.inf, 0.0]), (tensors, 1))


def _sample(number: np.int64) -> int | None:
    return None if number == NEVER else int(number)
