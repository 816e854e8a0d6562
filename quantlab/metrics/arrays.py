"""What several metrics share: checked arrays, ranks of classes, decibels, the mean of scores."""

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import DataError
from quantlab.metrics.base import Array

CEILING = 150.0
"""Largest ratio reported, in dB: float32's 24 bits give 6.02 * 24 + 1.76 = 146 dB at best."""


def mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of rows (..., n, 1) as (...)."""
    return np.asarray(scores[..., 0].mean(axis=-1))


def decibels(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``10 * log10(signal / noise)`` of powers, within +-CEILING; CEILING without noise."""
    with np.errstate(divide="ignore", invalid="ignore"):  # zeros are what the ceiling is for
        ratio = 10 * (np.log10(signal) - np.log10(noise))
    return np.asarray(np.where(noise == 0, CEILING, np.clip(ratio, -CEILING, CEILING)))


def flat_pair(
    outputs: Array, target: Array, what: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as finite float64 (n, elements of a sample).

    Args:
        outputs: (n, ...).
        target: of the same shape.
        what: what the target is, for messages.

    Raises:
        DataError: the shapes differ, or a NaN or an infinity is inside.
    """
    if outputs.shape != target.shape:
        raise DataError(
            f"{what} of shape {target.shape} cannot be compared with an output of shape "
            f"{outputs.shape}: expected the same shape"
        )
    return _finite(outputs, "the output"), _finite(target, what)


def column(values: Array, what: str) -> NDArray[np.float64]:
    """Return one finite number a sample (n,) of ``values`` (n,), (n, 1), (n, 1, 1) ...

    Raises:
        DataError: a sample holds more or less than one number, or it is NaN or infinite.
    """
    flat = _finite(values, what)
    if flat.shape[1] != 1:
        raise DataError(f"{what} of shape {values.shape}: expected one number a sample")
    return flat[:, 0]


def class_scores(outputs: Array) -> Array:
    """Return (n, classes) of an output (n, classes) or (n, classes, 1, ...); at least 2 classes.

    Infinite scores still rank; NaN does not.

    Raises:
        DataError: another shape, or NaN inside.
    """
    classes = outputs.shape[1] if outputs.ndim > 1 else 0
    if classes < 2 or outputs.size != len(outputs) * classes:
        raise DataError(
            f"an output of shape {outputs.shape} does not score classes: expected (samples, "
            "classes) with at least 2 classes; choose another output with 'evaluation: output:' "
            "or another metric"
        )
    _reject(np.isnan(outputs), "the output", "NaN")
    return outputs.reshape(len(outputs), classes)


def class_labels(labels: Array, classes: int) -> NDArray[np.int64]:
    """Return labels (n,) or (n, 1) as int64 (n,), each in [0, classes).

    Raises:
        DataError: not integers, another shape, or out of range.
    """
    if labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise DataError(
            f"labels are {labels.dtype} of shape {labels.shape}: expected one integer class "
            "index a sample"
        )
    flat = labels.reshape(-1).astype(np.int64)
    outside = np.flatnonzero((flat < 0) | (flat >= classes))
    if outside.size:
        raise DataError(
            f"the label of sample {outside[0]} of the batch is {flat[outside[0]]}, but the output "
            f"scores {classes} classes: expected 0 to {classes - 1}; check the labels and the "
            "order of the classes"
        )
    return flat


def hits(outputs: Array, labels: Array, k: int) -> NDArray[np.float64]:
    """Return (n, 1): 100 where the label is among the k best-scored classes, else 0.

    Of equal scores the lower class index ranks first, as ``argmax`` has it: INT8 makes ties.

    Raises:
        DataError: outputs or labels do not fit, or there are not more than k classes.
    """
    scores = class_scores(outputs)
    classes = scores.shape[1]
    if classes <= k:
        raise DataError(
            f"the output scores {classes} classes, so the best {k} are always right; use top1"
        )
    index = class_labels(labels, classes)[:, None]
    own = np.take_along_axis(scores, index, axis=1)
    ahead = (scores > own) | ((scores == own) & (np.arange(classes) < index))  # type: ignore[operator]  # np.generic
    return np.where(ahead.sum(axis=1) < k, 100.0, 0.0)[:, None]


def _finite(values: Array, what: str) -> NDArray[np.float64]:
    flat = values.reshape(len(values), -1).astype(np.float64)
    _reject(np.isnan(flat), what, "NaN")
    _reject(np.isinf(flat), what, "an infinity")
    return flat


def _reject(bad: NDArray[np.bool_], what: str, found: str) -> None:
    if bad.any():
        raise DataError(
            f"{what} has {found} at sample {np.argwhere(bad)[0][0]} of the batch, which no metric "
            "can judge; look for overflow in this engine, or a damaged sample"
        )
