"""The largest magnitude of every batch on disk: batch_amax.npz, 8 bytes a tensor and batch.

It lies beside histograms.npz and, unlike that, depends on how the samples were cut into batches.
Only the methods of ``calibrators.PER_BATCH`` read it.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import CalibrationError
from quantlab.files import staged
from quantlab.histogram import Histogram


@dataclass(frozen=True, slots=True, eq=False)
class BatchAmax:
    """What the file holds.

    Attributes:
        tensors: names, one a column.
        first: (batches,) int64, index of each batch's first sample, rising.
        amax: (batches, tensors) float64, in the tensors' units; -inf where a batch had no finite
            element, >= 0 elsewhere.
    """

    tensors: tuple[str, ...]
    first: NDArray[np.int64]
    amax: NDArray[np.float64]


def save(
    path: Path,
    tensors: Sequence[str],
    first: NDArray[np.int64],
    amax: NDArray[np.float64],
) -> None:
    """Write the maxima, whole or not at all, in equal bytes for every order of the batches.

    Args:
        path: of the file.
        tensors: names, one a column.
        first: (batches,) int64, index of each batch's first sample.
        amax: (batches, tensors) float64 as ``BatchAmax.amax``, rows as in ``first``.
    """
    order = np.argsort(first, kind="stable")
    with staged(path) as temporary:
        np.savez_compressed(
            temporary,
            tensor=np.array(tensors, dtype=np.str_),
            first=first[order].astype(np.int64),
            amax=amax[order].astype(np.float64),
        )


def load(path: Path) -> BatchAmax:
    """Read what ``save`` wrote.

    Raises:
        CalibrationError: the file is missing, truncated, or of another kind, or a batch is in it
            twice.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            tensor, first, amax = file["tensor"], file["first"], file["amax"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(
            f"cannot read the batches' maxima in {path}: {error}; run 'quantlab calibrate' again"
        ) from error
    expected = (first.size, tensor.size)
    if amax.shape != expected or amax.dtype != np.float64:
        raise CalibrationError(
            f"{path}: expected float64 maxima of shape {expected}, got {amax.dtype} {amax.shape}; "
            "run 'quantlab calibrate' again"
        )
    if not ((amax >= 0) & (amax < np.inf) | (amax == -np.inf)).all():
        raise CalibrationError(
            f"{path}: expected maxima from 0 or -inf, got others; run 'quantlab calibrate' again"
        )
    if not (np.diff(first) > 0).all():
        raise CalibrationError(
            f"{path}: expected each batch once, in order; run 'quantlab calibrate' again"
        )
    return BatchAmax(tuple(map(str, tensor)), first, amax)


def attach(histograms: Mapping[str, Histogram], path: Path) -> dict[str, Histogram]:
    """Return ``histograms`` with their ``batch_amax`` from the file, in the samples' order.

    Raises:
        CalibrationError: as ``load``, or the file lacks one of the tensors.
    """
    found = load(path)
    column = {tensor: i for i, tensor in enumerate(found.tensors)}
    missing = [tensor for tensor in histograms if tensor not in column]
    if missing:
        raise CalibrationError(
            f"{path}: no maxima for {len(missing)} of {len(histograms)} tensors, among them "
            f"{missing[0]!r}; run 'quantlab calibrate' again"
        )
    return {
        tensor: replace(histogram, batch_amax=found.amax[:, column[tensor]])
        for tensor, histogram in histograms.items()
    }
