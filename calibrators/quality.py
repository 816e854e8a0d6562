r"""What a threshold does to a tensor, predicted from the tensor's histogram.

Model: the elements of a bin are spread evenly over it; exact zeros are known and cost nothing.
So predictions know a magnitude to within a bin, 1/4096 to 1/2048 of the largest: a constant or
already quantized tensor, whose true error may be nil, is predicted at up to 70 dB.  The value
-128, which a signed tensor may use beyond -127, is left out.

Error.  A magnitude x goes to ``q * s``, where s is the step and q the number of borders
``b_k = (k - 1/2) s``, k = 1 .. levels, that lie below x.  Because ``sum_{k<=q} (2k - 1) = q**2``,

    (x - q s)**2 = x**2 - sum_{k=1..levels} 2 s max(x - b_k, 0),

and over all elements the error is ``sum(x**2) - 2 s sum_k G(b_k)`` with the excess function
``G(b) = sum(max(x - b, 0))``.  G is quadratic within a bin and follows from two cumulative sums of
the counts, so a candidate step costs one look-up a level, whatever the number of elements or bins.

Units: thresholds and steps in the tensor's units; errors relative to the signal's power.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantlab.histogram import Histogram
from quantlab.qparams import LEVELS, scale_of


def relative_error(
    histogram: Histogram, steps: NDArray[np.float64], levels: int = LEVELS
) -> NDArray[np.float64]:
    """Return the expected squared error over the sum of squares, for each of several grids.

    Args:
        histogram: with at least one element that is not zero.
        steps: (n,) float64 distance of neighbouring grid points, > 0.
        levels: grid points on each side of zero.

    Returns:
        (n,) float64, from 0 (no error) to 1 (everything becomes zero).
    """
    from quantlab.calibrators.kernels import captured  # loads Numba

    counts = _nonzero(histogram)
    bins = np.arange(counts.size)
    power = float(counts @ (bins * (bins + 1.0) + 1 / 3))
    wide = np.ldexp(steps, -histogram.exponent)
    return np.maximum(1.0 - captured(counts, wide, levels) / power, 0.0)


def sqnr_db(histogram: Histogram, threshold: float, levels: int = LEVELS) -> float | None:
    """Return the predicted signal-to-quantization-noise ratio in dB.

    The step is the float32 scale that ``threshold`` is given, its lower limit included: a tensor
    too small for any float32 scale is predicted at 0 dB, since all of it becomes zero.

    Returns:
        None where there is no error to speak of: no element, or nothing but zeros.
    """
    return sqnrs_db(histogram, [threshold], levels)[0]


def sqnrs_db(
    histogram: Histogram, thresholds: Sequence[float], levels: int = LEVELS
) -> list[float | None]:
    """Return ``sqnr_db`` of each of several thresholds, at less than their single costs."""
    if histogram.amax == 0:
        return [None] * len(thresholds)
    steps = np.array([scale_of(threshold, levels) for threshold in thresholds])
    errors = relative_error(histogram, steps, levels).tolist()
    return [0.0 - 10 * math.log10(error) if error > 0 else None for error in errors]


def clipped_fraction(histogram: Histogram, threshold: float) -> float:
    """Return the share of finite elements whose magnitude is above ``threshold``.

    Whole bins above it count whole, and of the bin that holds it the part above counts.  So it is
    exact where the threshold is an edge, and where nothing is clipped: from the largest magnitude
    on it is 0.
    """
    if threshold >= histogram.amax:
        return 0.0
    place = math.ldexp(threshold, -histogram.exponent)
    split = int(place)
    counts = _nonzero(histogram)
    above = counts[split + 1 :].sum() + (split + 1 - place) * counts[split]
    return float(above / histogram.total)


def _nonzero(histogram: Histogram) -> NDArray[np.float64]:
    """Return (used,) the counts without the exact zeros, as float64."""
    counts = histogram.counts[: histogram.used].astype(np.float64)
    counts[:1] -= histogram.zeros
    return counts
