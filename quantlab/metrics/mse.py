"""Mean squared error to FP32: mean over samples of the mean of ``(output - fp32)**2``."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import flat_pair, mean
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Mse:
    """Outputs of any shape against FP32's; in the output's own units, squared."""

    name: ClassVar[str] = "mse"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = False
    compares: ClassVar[Reference] = "fp32"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1): each sample's mean squared error."""
        a, b = flat_pair(outputs, target, "FP32's output")
        return np.asarray(np.square(a - b).mean(axis=1, keepdims=True))

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)
