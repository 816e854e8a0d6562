"""Top-1 accuracy: the share of samples whose best-scored class is the label, in %."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import hits, mean
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Top1:
    """Outputs (n, classes) against integer labels (n,); of equal scores the first class counts."""

    name: ClassVar[str] = "top1"
    unit: ClassVar[str] = "%"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "labels"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1): 100 where right, 0 where wrong."""
        return hits(outputs, target, k=1)

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)
