"""The threshold of least expected squared error.

For a threshold t the symmetric grid has the step ``t / levels``.  ``quality.relative_error`` gives
the mean squared error that rounding and clipping to it cost, for all candidates at once.
Candidates are the upper edge of every bin that is used, and the largest magnitude in place of the
last edge: not clipping at all is among them, and no threshold exceeds the largest magnitude.

Source of the criterion: Nagel et al., "A White Paper on Neural Network Quantization",
arXiv:2106.08295, section 3.1.  A constant tensor, and one whose elements share a bin, give the
largest magnitude.
"""

from dataclasses import dataclass

import numpy as np

from quantlab.calibrators.base import check, last_least
from quantlab.calibrators.quality import relative_error
from quantlab.errors import ConfigError
from quantlab.histogram import Histogram
from quantlab.qparams import LEVELS


@dataclass(frozen=True, slots=True)
class Mse:
    """Try the edge of every bin; of several with the least error take the largest.

    Attributes:
        levels: steps on each side of zero, at least 1; 127 is INT8 without the value -128.
    """

    levels: int = LEVELS

    def __post_init__(self) -> None:
        """Raise ConfigError for less than one level."""
        if self.levels < 1:
            raise ConfigError(f"levels: expected 1 or more, got {self.levels}; INT8 has 127")

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold in the tensor's units, at most the largest magnitude.

        Raises:
            CalibrationError: as ``base.check``.
        """
        check(histogram)
        if histogram.amax == 0:
            return 0.0
        edges = np.arange(1, histogram.used + 1, dtype=np.float64) * histogram.width
        edges[-1] = histogram.amax
        return float(edges[last_least(relative_error(histogram, edges / self.levels, self.levels))])
