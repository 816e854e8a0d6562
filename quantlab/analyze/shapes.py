"""What the histogram of a quantized tensor looks like, and how unequal channels are, as numbers.

Units: magnitudes in the tensor's own; percentiles are the upper edge of the bin that holds them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantlab.histogram import Histogram
from quantlab.qparams import LEVELS, UNSIGNED_LEVELS, QParams
from quantlab.records import TensorThreshold


@dataclass(frozen=True, slots=True)
class Shape:
    """A histogram against its threshold.

    Attributes:
        amax: largest magnitude.
        threshold: what the largest step stands for.
        tail: amax over the 99.9th percentile of magnitudes; 1 where all are zero.
        steps: how many the smallest 99 % of magnitudes use.
        levels: of how many, without that of zero: 254, or 255 of UINT8 with zero point 0.
        clipped: share beyond the threshold.
        zeros: share of zeros.
        one_sided: whether none is negative.
    """

    amax: float
    threshold: float
    tail: float
    steps: int
    levels: int
    clipped: float
    zeros: float
    one_sided: bool


def shape_of(histogram: Histogram, threshold: TensorThreshold, grid: QParams) -> Shape:
    """Return what a tensor's histogram looks like on its grid."""
    total = max(histogram.total, 1)
    high = _percentile(histogram, 0.999)
    sides = 1 if histogram.minimum >= 0 else 2
    signed = grid.zero_point.dtype == np.int8 or bool(grid.zero_point)
    side = LEVELS if signed else UNSIGNED_LEVELS
    used = int(np.ceil(min(_percentile(histogram, 0.99) / float(grid.scale), side)))
    beyond = histogram.counts[histogram.edges[:-1] >= threshold.threshold].sum()
    return Shape(
        amax=histogram.amax,
        threshold=threshold.threshold,
        tail=histogram.amax / high if high else 1.0,
        steps=sides * used,
        levels=2 * LEVELS if signed else UNSIGNED_LEVELS,
        clipped=float(beyond) / total if threshold.threshold < histogram.amax else 0.0,
        zeros=histogram.zeros / total,
        one_sided=histogram.minimum >= 0,
    )


def spread(channels: NDArray[np.float64] | None, factor: float) -> tuple[float, int]:
    """Return the largest channel over the median one, and how many are beyond ``factor`` of it.

    Args:
        channels: (channels,) largest magnitude of each; those that are always zero do not count.
        factor: of the median.
    """
    alive = channels[channels > 0] if channels is not None else np.zeros(0)
    if alive.size < 2:
        return 1.0, 0
    median = float(np.median(alive))
    return float(alive.max()) / median, int((alive > factor * median).sum())


def _percentile(histogram: Histogram, share: float) -> float:
    """Return the magnitude that ``share`` of the elements stay below, at most the largest."""
    if not histogram.total:
        return 0.0
    reached = np.searchsorted(np.cumsum(histogram.counts), share * histogram.total)
    return float(min(histogram.edges[reached + 1], histogram.amax))
