"""Spearman's rank correlation between a scalar output and a numeric label, over all samples.

It is Pearson's correlation of the ranks, equal values sharing their average rank (Spearman, "The
proof and measurement of association between two things", 1904).  Where all outputs or all labels
are equal nothing is ranked, and the correlation is reported as 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import column
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Spearman:
    """Outputs and labels with one number a sample, as a similarity model has."""

    name: ClassVar[str] = "spearman"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "labels"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 2): output and label."""
        return np.stack([column(outputs, "the output"), column(target, "the label")], axis=1)

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the correlation of the two columns of rows (..., n, 2)."""
        from scipy.stats import rankdata

        ranks = rankdata(scores, axis=-2) - (scores.shape[-2] + 1) / 2
        covariance = ranks.prod(axis=-1).sum(axis=-1)
        spread = np.sqrt(np.square(ranks).sum(axis=-2).prod(axis=-1))
        ratio = np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)
        return np.asarray(np.clip(ratio, -1.0, 1.0))
