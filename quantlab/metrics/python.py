"""A metric of the user's own: a Python function that scores each sample.

    metrics:
      - {kind: python, function: "scoring.py:iou", unit: "%"}

The function is called with a batch's outputs (n, ...) and target (n, ...) and returns an array of
shape (n,), or (n, k) of which a sample's mean is taken.  The value is the mean over samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantlab import functions
from quantlab.errors import DataError
from quantlab.metrics.arrays import mean
from quantlab.metrics.base import Array, Reference

ROLE = "metric 'python'"


@dataclass(frozen=True)  # without slots: the loaded function is cached on the instance
class Python:
    """The mean of what a function returns.

    Attributes:
        function: "module:function", or "file.py:function" relative to ``folder``.
        folder: where the file is; the config file's folder if not given.
        unit: of the value: "%", "dB" or "".
        higher_is_better: direction.
        compares: what the function gets as target: "labels", or "fp32" for FP32's outputs.
    """

    function: str
    folder: Path = Path()
    unit: str = ""
    higher_is_better: bool = True
    compares: Reference = "labels"

    def __post_init__(self) -> None:
        """Refuse what cannot name a function."""
        functions.split(ROLE, self.function)

    @property
    def name(self) -> str:
        """The function's name."""
        return functions.split(ROLE, self.function)[1]

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 1): each sample's score."""
        returned = self._loaded(outputs, target)
        try:
            scores = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.function} did not return numbers: {error}") from error
        if scores.ndim not in (1, 2) or len(scores) != len(outputs) or scores.size == 0:
            raise DataError(
                f"{self.function} returned an array of shape {scores.shape} for {len(outputs)} "
                f"samples; expected ({len(outputs)},) or ({len(outputs)}, k): scores a sample"
            )
        if not np.isfinite(scores).all():
            sample = np.argwhere(~np.isfinite(scores))[0][0]
            raise DataError(
                f"{self.function} returned NaN or an infinity for sample {sample} of the batch; "
                "expected finite scores"
            )
        return np.asarray(scores.reshape(len(outputs), -1).mean(axis=1, keepdims=True))

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of rows (..., n, 1)."""
        return mean(scores)

    @cached_property
    def _loaded(self) -> Callable[[Array, Array], object]:
        return functions.load(ROLE, self.function, self.folder)
