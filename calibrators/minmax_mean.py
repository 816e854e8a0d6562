"""The largest magnitude of a batch, averaged over the batches.

With ``a_i`` the largest finite magnitude of batch i, i = 1 .. n, the threshold is the mean of the
``a_i``; with an ``averaging_constant`` c it is the last of

    t_1 = a_1,    t_i = t_{i-1} + c (a_i - t_{i-1}).

An outlier counts as one batch in n, where min-max would let it decide; what lies above the average
of the batches is clipped.  A batch without a finite element is left out.

**This method alone depends on the batches.**  Larger batches have larger maxima, so the threshold
grows with the batch size and reaches min-max where one batch holds every sample; the order of the
samples decides who shares a batch, and with an averaging constant also what counts most.  The
other methods give the same threshold for every cut.

Sources: the mean is what ONNX Runtime 1.31 does with ``CalibMovingAverage`` over one data reader
(onnxruntime/quantization/calibrate.py, MinMaxCalibrater), the moving average what it does from
reader to reader, and PyTorch's MovingAverageMinMaxObserver from batch to batch (both c = 0.01).
They average minimum and maximum apart; here it is the magnitude, which a symmetric grid needs.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantlab.calibrators.base import check
from quantlab.errors import CalibrationError, ConfigError
from quantlab.histogram import Histogram


@dataclass(frozen=True, slots=True)
class MinMaxMean:
    """Average what min-max gives for each batch.

    Attributes:
        averaging_constant: share of each further batch in a moving average, above 0 and up to 1,
            in the samples' order; None for the plain mean.
    """

    averaging_constant: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for an averaging constant outside (0, 1]."""
        if self.averaging_constant is not None and not 0 < self.averaging_constant <= 1:
            raise ConfigError(
                "averaging_constant: expected a number above 0 and up to 1, got "
                f"{self.averaging_constant}; leave it out for the mean of all batches"
            )

    def threshold(self, histogram: Histogram) -> float:
        """Return the average of ``histogram.batch_amax``, at most the largest magnitude.

        Raises:
            CalibrationError: as ``base.check``; or the maxima of the batches were not kept.
        """
        check(histogram)
        kept = histogram.batch_amax
        maxima = np.empty(0) if kept is None else kept[kept >= 0]  # -inf: nothing finite in it
        if maxima.size == 0:
            raise CalibrationError(
                f"tensor {histogram.tensor!r}: method 'minmax_mean' needs the largest magnitude "
                "of each batch, which was not kept; run 'quantlab calibrate' again, or choose "
                "another method"
            )
        average = self._average(maxima)
        # Rounding must not carry the average of equal numbers past them.
        return min(max(average, float(maxima.min())), float(maxima.max()))

    def _average(self, maxima: NDArray[np.float64]) -> float:
        if self.averaging_constant is None:
            return math.fsum(maxima) / maxima.size  # exact sum: the same in every order
        average, *later = maxima.tolist()
        for amax in later:
            average += self.averaging_constant * (amax - average)
        return float(average)
