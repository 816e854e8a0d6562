"""The magnitude below which a given share of the elements lies.

With n elements, ``ceil(n * percentile / 100)`` of them must not be clipped; the threshold is the
upper edge of the bin that holds the last of these, or the largest magnitude where that is less.
So at most ``100 - percentile`` per cent are clipped, and 100 is min-max exactly.  The percentile
is taken as the decimal that is written (99.9 of 1,000 is 999), not as its binary neighbour.

Zeros count as elements.  A constant tensor, and one whose elements share a bin, give the largest
magnitude.  Resolution: one bin, between 1/4096 and 1/2048 of the largest magnitude.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from quantlab.calibrators.base import check
from quantlab.errors import ConfigError
from quantlab.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip a fixed share of the elements at most.

    Attributes:
        percentile: share that is kept, in per cent, above 0 and up to 100.
    """

    percentile: float = 99.99

    def __post_init__(self) -> None:
        """Raise ConfigError for a percentile outside (0, 100]."""
        if not 0 < self.percentile <= 100:
            raise ConfigError(
                f"percentile: expected a number above 0 and up to 100, got {self.percentile}; "
                "99.99 keeps all but one element in 10,000"
            )

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold in the tensor's units, at most the largest magnitude.

        Raises:
            CalibrationError: as ``base.check``.
        """
        check(histogram)
        kept = math.ceil(Fraction(str(self.percentile)) * histogram.total / 100)
        last = int(np.searchsorted(np.cumsum(histogram.counts), kept))
        return min(math.ldexp(last + 1, histogram.exponent), histogram.amax)
