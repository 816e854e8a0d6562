"""Cosine similarity to FP32: mean over samples of ``a . b / (|a| |b|)`` of the flattened output.

Two all-zero outputs are identical: 1; if one of the two is all zero: 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import flat_pair, mean
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Cosine:
    """Outputs of any shape against FP32's."""

    name: ClassVar[str] = "cosine"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "fp32"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1) cosines in [-1, 1]."""
        a, b = flat_pair(outputs, target, "FP32's output")
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        dots = np.einsum("ij,ij->i", a, b)
        same = (a == b).all(axis=1)
        cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
        return np.where(same, 1.0, np.clip(cosines, -1.0, 1.0))[:, None]

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)
