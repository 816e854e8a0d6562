"""A histogram that grows: one tensor's activations in, batch by batch.

``Accumulator`` equals ``merge`` of ``from_array`` over the same arrays, bit for bit, at the speed
of the compiled kernel and without a temporary of the activation's size.
"""

import math

import numpy as np
from numpy.typing import NDArray

from quantlab.collect.kernel import BLOCK, count
from quantlab.histogram import Histogram, coarsen, empty, exponent_for

CONVERTED = 1 << 20
"""Elements of a type that the kernel does not read that are converted at a time."""

LARGEST_CALL = 1 << 30
"""Elements a kernel call: its inner tables count in 32 bits."""


class Accumulator:
    """Mutable on purpose: it lives for one collection, and hands out a frozen Histogram."""

    def __init__(self, tensor: str) -> None:
        start = empty(tensor)
        self._tensor = tensor
        self._counts = start.counts
        self._exponent = start.exponent
        self._seen = np.array([math.inf, -math.inf, 0.0])
        self._nans = 0
        self._infs = 0
        self._first_nan: int | None = None
        self._first_inf: int | None = None

    def add(self, values: NDArray[np.generic], samples: NDArray[np.int64]) -> None:
        """Count an activation.

        Args:
            values: any shape; float16, bfloat16, float32, float64, or integers.
            samples: (batch,) each sample's index.  A NaN is attributed to a sample if axis 0 of
                ``values`` is the batch axis, else to the batch's first sample.
        """
        flat = np.ascontiguousarray(values).reshape(-1)
        batched = values.ndim > 0 and values.shape[0] == len(samples)
        owners = samples if batched else samples[:1]
        if flat.size == 0:
            return
        per_owner = flat.size // len(owners)
        native = flat.dtype in (np.float32, np.float64)
        step = LARGEST_CALL if native else CONVERTED
        for start in range(0, flat.size, step):
            part = flat[start : start + step]
            self._add_floats(part if native else part.astype(np.float64), start, owners, per_owner)

    def histogram(self) -> Histogram:
        """Return what was counted so far; later ``add`` does not change it."""
        minimum, maximum, zeros = self._seen.tolist()
        return Histogram(
            tensor=self._tensor,
            counts=self._counts.copy(),
            exponent=self._exponent,
            minimum=minimum,
            maximum=maximum,
            zeros=int(zeros),
            nans=self._nans,
            infs=self._infs,
            first_nan=self._first_nan,
            first_inf=self._first_inf,
        )

    def _add_floats(
        self,
        part: NDArray[np.floating],
        offset: int,
        owners: NDArray[np.int64],
        per_owner: int,
    ) -> None:
        position = 0
        while position < part.size:
            position = self._count(part, position)
            if position < part.size:
                # Rare: a value outside the bins, not finite, or too small for float32's inverse.
                block = part[position : position + BLOCK]
                finite = block[np.isfinite(block)].astype(np.float64)
                self._grow_to(exponent_for(float(np.abs(finite).max(initial=0.0))))
                self._count(finite, 0)
                if finite.size < block.size:
                    self._note_bad(block, offset + position, owners, per_owner)
                position += block.size

    def _count(self, values: NDArray[np.floating], start: int) -> int:
        """Count on from ``start`` with the kernel; return where it stopped."""
        inverse = math.ldexp(1.0, -self._exponent)
        if values.dtype == np.float32 and inverse > float(np.finfo(np.float32).max):
            inverse = math.inf  # puts every value outside the bins, so that float64 counts it
        step = values.dtype.type(inverse)  # in the values' type, so that the kernel stays in it
        single = values.dtype == np.float32
        bits = values.view(np.int32) if single else values.view(np.int64)
        return int(count(values, bits, start, step, self._counts, self._seen))

    def _grow_to(self, exponent: int) -> None:
        if exponent > self._exponent:
            self._counts = coarsen(self._counts, exponent - self._exponent)
            self._exponent = exponent

    def _note_bad(
        self,
        block: NDArray[np.floating],
        offset: int,
        owners: NDArray[np.int64],
        per_owner: int,
    ) -> None:
        for bad, first in ((np.isnan(block), "_first_nan"), (np.isinf(block), "_first_inf")):
            places = np.flatnonzero(bad)
            if places.size == 0:
                continue
            sample = int(owners[(offset + places) // per_owner].min())
            known = getattr(self, first)
            setattr(self, first, sample if known is None else min(known, sample))
        self._nans += int(np.count_nonzero(np.isnan(block)))
        self._infs += int(np.count_nonzero(np.isinf(block)))
