"""Agreement: the share of samples whose best-scored class is the one that FP32 chose, in %.

It needs no labels, and sees changes that cancel out in the accuracy.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import class_scores, hits, mean
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Agreement:
    """Outputs (n, classes) against FP32's."""

    name: ClassVar[str] = "agreement"
    unit: ClassVar[str] = "%"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "fp32"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1): 100 where both choose the same class, else 0."""
        return hits(outputs, class_scores(target).argmax(axis=1), k=1)

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)
