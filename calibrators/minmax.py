"""The largest magnitude: nothing is clipped.

``threshold = max(|minimum|, |maximum|)``, exactly; one outlier decides it.  This is TensorRT's
IInt8MinMaxCalibrator.  Constant, one-bin, huge (within float32) and subnormal tensors are no
special case.
"""

from dataclasses import dataclass

from quantlab.calibrators.base import check
from quantlab.histogram import Histogram


@dataclass(frozen=True, slots=True)
class MinMax:
    """Clip nothing."""

    def threshold(self, histogram: Histogram) -> float:
        """Return the largest finite magnitude, in the tensor's units.

        Raises:
            CalibrationError: as ``base.check``.
        """
        check(histogram)
        return histogram.amax
