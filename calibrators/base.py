"""What a calibrator is: a pure function from a histogram to a clipping threshold.

Implementations are frozen dataclasses of their parameters.  All of them agree on the edges:

- no finite element: CalibrationError (from ``check``);
- a magnitude beyond float32, which only a float64 tensor can hold: CalibrationError, because no
  engine could hold it either;
- all elements zero: threshold 0.0, which a cache writes as ``0`` and Q/DQ as scale 1.0;
- NaN and infinities are counted apart and are not in the counts; whether they are an error is the
  collector's decision, not the calibrator's.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import CalibrationError
from quantlab.histogram import Histogram
from quantlab.qparams import FLOAT32_MAX

TIE = 1e-12
"""Costs this close to the least are equal: it is above what rounding does to a cost of order 1,
and far below any difference that matters."""


class Calibrator(Protocol):
    """Chooses the magnitude that the largest INT8 step stands for."""

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold, finite and >= 0; 0 only for an all-zero tensor.

        Raises:
            CalibrationError: the histogram holds no finite element, or one beyond float32.
        """
        ...


def check(histogram: Histogram) -> None:
    """Raise CalibrationError if no threshold can come of this histogram."""
    if histogram.total == 0:
        raise CalibrationError(
            f"tensor {histogram.tensor!r}: no finite element was collected, so there is no "
            "threshold; calibrate on more samples, or keep this tensor in floating point"
        )
    if histogram.amax > FLOAT32_MAX:
        raise CalibrationError(
            f"tensor {histogram.tensor!r}: expected magnitudes within float32, got "
            f"{histogram.amax:g}; engines compute in float32 or less, where this is infinite: "
            "look for the sample or the operation that makes it"
        )


def last_least(costs: NDArray[np.float64]) -> int:
    """Return the index of the least cost; of several within ``TIE`` the last.

    Costs are in order of rising threshold, so a tie goes to the threshold that clips least.
    """
    return int(np.flatnonzero(costs <= costs.min() + TIE)[-1])
