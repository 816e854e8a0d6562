"""Functions that the python metric is tried with."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def closeness(outputs: Floats, target: Floats) -> Floats:
    """Return 1 where equal, less where not: (n,)."""
    distance = np.abs(outputs - target).reshape(len(outputs), -1).sum(axis=1)
    return np.asarray(1 / (1 + distance))


def two_columns(outputs: Floats, target: Floats) -> Floats:
    """Return (n, 2)."""
    return np.stack([outputs[:, 0], target[:, 0]], axis=1)


def batch_mean(outputs: Floats, target: Floats) -> float:
    """Return one number for the whole batch: wrong."""
    return float((outputs == target).mean())


def words(outputs: Floats, target: Floats) -> list[str]:
    """Return no numbers: wrong."""
    return ["good" for _ in zip(outputs, target, strict=True)]


def undefined(outputs: Floats, target: Floats) -> Floats:
    """Return NaN for the second sample: wrong."""
    scores = np.ones(len(target))
    scores[1] = np.nan
    return scores[: len(outputs)]


NUMBER = 3
