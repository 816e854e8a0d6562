"""Top-5 accuracy: the share of samples whose label is among the five best-scored classes, in %."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import hits, mean
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Top5:
    """Outputs (n, classes), 6 classes or more, against integer labels (n,)."""

    name: ClassVar[str] = "top5"
    unit: ClassVar[str] = "%"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "labels"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1): 100 where the label is among the five, else 0."""
        return hits(outputs, target, k=5)

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)
