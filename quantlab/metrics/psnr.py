"""Peak signal-to-noise ratio against target arrays: ``10 log10(peak**2 / MSE)`` a sample, in dB.

The value is the mean over samples, as image restoration reports it.  A sample's ratio is held
within +-150 dB; one equal to its target gives 150.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import ConfigError
from quantlab.metrics.arrays import decibels, flat_pair, mean
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Psnr:
    """Outputs of any shape against labels of the same shape.

    Attributes:
        peak: largest possible value of a clean signal: 1.0 for images in [0, 1], 255 for bytes.
    """

    name: ClassVar[str] = "psnr"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "labels"

    peak: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a peak that is no signal."""
        if not 0 < self.peak < np.inf:
            raise ConfigError(f"metric 'psnr': peak is {self.peak}; expected a positive number")

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1): each sample's ratio in dB."""
        a, b = flat_pair(outputs, target, "the label")
        errors = np.square(a - b).mean(axis=1, keepdims=True)
        return decibels(np.full_like(errors, self.peak**2), errors)

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)
