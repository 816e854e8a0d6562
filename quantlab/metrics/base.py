"""What a metric is: a score for each sample, and a value of many scores.

Scores are kept a row a sample, so that evaluation streams, and intervals and paired deltas are
computed by resampling rows.  ``value`` takes any selection of rows.
"""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

Reference = Literal["labels", "fp32"]
"""What outputs are compared with: the dataset's labels or the FP32 engine's outputs."""


class Metric(Protocol):
    """Compares outputs with labels, or with FP32's outputs on the same samples."""

    @property
    def name(self) -> str:
        """Name in the report; METRICS' key, except that ``python`` is named after its function."""
        ...

    @property
    def unit(self) -> str:
        """One of "%", "dB" and ""."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Direction."""
        ...

    @property
    def compares(self) -> Reference:
        """What ``target`` is."""
        ...

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, k): what ``value`` needs of each of n samples.

        Args:
            outputs: (n, ...) one output of the engine.
            target: (n, ...) labels, or FP32's same output.

        Raises:
            DataError: shapes or values do not fit, or an output is NaN; says expected and got.
        """
        ...

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric of rows ``scores`` (..., n, k) as (...); n >= 1."""
        ...
