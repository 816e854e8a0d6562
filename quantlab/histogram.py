"""Exact, mergeable histogram of the magnitudes of one tensor.

Counts stand on ``BINS`` bins of width ``2**exponent`` from 0; bin i holds the finite elements with
``i * width <= |x| < (i + 1) * width`` (zeros fall into bin 0 and are also counted apart).  When a
magnitude falls outside, the width doubles and neighbouring bins are added.  Because the bins nest,
that loses nothing: the result equals binning everything at the final width.  The final width
depends on the largest magnitude alone, so the histogram is a function of the data: the same bytes
for any batch size, order, or number of workers.  ``merge`` is associative and commutative.

Units: widths, minimum and maximum in the tensor's units; counts in elements.
Limits: magnitudes below ``2**MIN_EXPONENT`` share bin 0; they are smaller than any float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 4096
"""Number of bins; the largest magnitude lies in the upper half, unless it is below ``2**-988``."""

MIN_EXPONENT = -1000
"""Smallest exponent of a bin's width; keeps ``2**-exponent`` finite in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """What calibration keeps of a tensor.

    Attributes:
        tensor: name in the prepared graph.
        counts: (BINS,) int64, finite elements by magnitude.
        exponent: bin width is ``2.0**exponent``; MIN_EXPONENT while nothing but zeros was seen.
        minimum: smallest finite element, +inf if none was seen; a zero is stored as +0.0.
        maximum: largest finite element, -inf if none was seen; a zero is stored as +0.0.
        zeros: elements equal to 0.
        nans: elements that are NaN.
        infs: elements that are +inf or -inf.
        first_nan: index of the first sample with a NaN, or None.
        first_inf: index of the first sample with an infinity, or None.
        batch_amax: (batches,) float64, largest finite magnitude of each batch in the samples'
            order, -inf for a batch without one; None where it was not kept.  It alone tells how
            the samples were cut, so it is no part of equality and ``merge`` drops it.
    """

    tensor: str
    counts: NDArray[np.int64]
    exponent: int
    minimum: float
    maximum: float
    zeros: int = 0
    nans: int = 0
    infs: int = 0
    first_nan: int | None = None
    first_inf: int | None = None
    batch_amax: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Drop the sign of zero: which of 0.0 and -0.0 is met first depends on the order."""
        object.__setattr__(self, "minimum", self.minimum + 0.0)
        object.__setattr__(self, "maximum", self.maximum + 0.0)

    @property
    def total(self) -> int:
        """Number of finite elements."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def amax(self) -> float:
        """Largest finite magnitude; 0 if no finite element was seen."""
        return max(abs(self.minimum), abs(self.maximum)) if self.total else 0.0

    @property
    def used(self) -> int:
        """Number of bins up to and including the last that holds an element."""
        filled = np.flatnonzero(self.counts)
        return int(filled[-1]) + 1 if filled.size else 0

    @property
    def edges(self) -> NDArray[np.float64]:
        """(BINS + 1,) bin edges, the first 0; the last is infinite if it exceeds float64."""
        with np.errstate(over="ignore"):
            return np.arange(BINS + 1, dtype=np.float64) * self.width

    @property
    def centers(self) -> NDArray[np.float64]:
        """(BINS,) bin centres."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * self.width

    def __eq__(self, other: object) -> bool:
        """Equal in every count and every field but ``batch_amax``."""
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._scalars() == other._scalars() and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # an array is inside

    def _scalars(self) -> tuple[object, ...]:
        return (
            self.tensor,
            self.exponent,
            self.minimum,
            self.maximum,
            self.zeros,
            self.nans,
            self.infs,
            self.first_nan,
            self.first_inf,
        )


def empty(tensor: str) -> Histogram:
    """Return the histogram of no elements: the neutral element of ``merge``."""
    return Histogram(tensor, np.zeros(BINS, np.int64), MIN_EXPONENT, math.inf, -math.inf)


def exponent_for(amax: float) -> int:
    """Return the least exponent whose BINS bins hold ``amax``, MIN_EXPONENT at least.

    ``amax = m * 2**p`` with 0.5 <= m < 1, so ``2**p`` is the least power of two above it.
    """
    if amax == 0:
        return MIN_EXPONENT
    return max(math.frexp(amax)[1] - int(math.log2(BINS)), MIN_EXPONENT)


def coarsen(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """Return ``counts`` (BINS,) on bins ``2**doublings`` times as wide; exact.

    Args:
        counts: (BINS,) int64.
        doublings: >= 0; from log2(BINS) on everything falls into bin 0.
    """
    factor = 1 << min(doublings, int(math.log2(BINS)))
    merged = np.zeros(BINS, np.int64)
    merged[: BINS // factor] = counts.reshape(-1, factor).sum(axis=1)
    return merged


def from_array(tensor: str, values: NDArray[np.generic], first_sample: int = 0) -> Histogram:
    """Return the histogram of one array, whose axis 0 counts samples from ``first_sample``.

    The plain NumPy statement of the definition; the collector's kernel must equal it.
    """
    x = np.asarray(values).astype(np.float64)
    finite = x[np.isfinite(x)]
    amax = float(np.abs(finite).max(initial=0.0))
    exponent = exponent_for(amax)
    index = np.floor(np.ldexp(np.abs(finite), -exponent)).astype(np.int64)
    return Histogram(
        tensor=tensor,
        counts=np.bincount(index, minlength=BINS).astype(np.int64),
        exponent=exponent,
        minimum=float(finite.min(initial=math.inf)),
        maximum=float(finite.max(initial=-math.inf)),
        zeros=int(np.count_nonzero(finite == 0)),
        nans=int(np.count_nonzero(np.isnan(x))),
        infs=int(np.count_nonzero(np.isinf(x))),
        first_nan=_first_sample(np.isnan(x), first_sample),
        first_inf=_first_sample(np.isinf(x), first_sample),
    )


def merge(parts: Sequence[Histogram]) -> Histogram:
    """Return the histogram of all elements of ``parts`` together; exact, without ``batch_amax``.

    Args:
        parts: at least one, all of the same tensor.
    """
    names = {part.tensor for part in parts}
    if len(names) != 1:
        raise ValueError(f"histograms of one tensor can be merged, got {sorted(names)}")
    exponent = max(part.exponent for part in parts)
    counts = np.zeros(BINS, np.int64)
    for part in parts:
        counts += coarsen(part.counts, exponent - part.exponent)
    return Histogram(
        tensor=parts[0].tensor,
        counts=counts,
        exponent=exponent,
        minimum=min(part.minimum for part in parts),
        maximum=max(part.maximum for part in parts),
        zeros=sum(part.zeros for part in parts),
        nans=sum(part.nans for part in parts),
        infs=sum(part.infs for part in parts),
        first_nan=_earliest([part.first_nan for part in parts]),
        first_inf=_earliest([part.first_inf for part in parts]),
    )


def _first_sample(bad: NDArray[np.bool_], first_sample: int) -> int | None:
    if not bad.any():
        return None
    return first_sample + (int(np.argwhere(bad)[0][0]) if bad.ndim else 0)


def _earliest(indices: list[int | None]) -> int | None:
    seen = [index for index in indices if index is not None]
    return min(seen) if seen else None
