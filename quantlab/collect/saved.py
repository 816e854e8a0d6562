"""Histograms on disk: histograms.npz, about 32 KB a tensor before compression."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import CalibrationError
from quantlab.files import staged
from quantlab.histogram import BINS, Histogram
from quantlab.npz import DAMAGED, arrays

NEVER = -1
"""Stands for "no sample" in the columns of first samples."""


def save(path: Path, histograms: Mapping[str, Histogram]) -> None:
    """Write the histograms, whole or not at all; equal histograms give equal bytes."""
    with staged(path) as temporary:
        np.savez_compressed(temporary, **columns(tuple(histograms.values())))  # type: ignore[arg-type]  # NumPy's stub lets ** hold its own parameters too


def load(path: Path) -> dict[str, Histogram]:
    """Read what ``save`` wrote.

    Raises:
        CalibrationError: the file is missing, truncated, or of another kind.
    """
    try:
        return histograms_of(arrays(path))
    except DAMAGED as error:
        raise CalibrationError(
            f"cannot read the histograms in {path}: {error}; run 'quantlab calibrate' again"
        ) from error


def columns(parts: Sequence[Histogram]) -> dict[str, NDArray[Any]]:
    """Return the histograms as arrays, one row a tensor."""
    firsts = [(_number(p.first_nan), _number(p.first_inf)) for p in parts]
    return {
        "tensor": np.array([p.tensor for p in parts], dtype=np.str_),
        "counts": np.array([p.counts for p in parts], np.int64).reshape(len(parts), BINS),
        "exponent": np.array([p.exponent for p in parts], np.int64),
        "limits": np.array([(p.minimum, p.maximum) for p in parts], np.float64).reshape(-1, 2),
        "special": np.array([(p.zeros, p.nans, p.infs) for p in parts], np.int64).reshape(-1, 3),
        "first": np.array(firsts, np.int64).reshape(-1, 2),
    }


def histograms_of(made: Mapping[str, NDArray[Any]]) -> dict[str, Histogram]:
    """Return the histograms of ``columns``.

    Raises:
        ValueError: the counts are not what ``columns`` makes.
        LookupError: an array or a row is missing.
    """
    tensor, counts, exponent = made["tensor"], made["counts"], made["exponent"]
    limits, special, first = made["limits"], made["special"], made["first"]
    if counts.shape != (len(tensor), BINS) or counts.dtype != np.int64:
        raise ValueError(
            f"expected int64 counts of shape ({len(tensor)}, {BINS}), "
            f"got {counts.dtype} {counts.shape}"
        )
    return {
        str(name): Histogram(
            tensor=str(name),
            counts=counts[i],
            exponent=int(exponent[i]),
            minimum=float(limits[i, 0]),
            maximum=float(limits[i, 1]),
            zeros=int(special[i, 0]),
            nans=int(special[i, 1]),
            infs=int(special[i, 2]),
            first_nan=_sample(int(first[i, 0])),
            first_inf=_sample(int(first[i, 1])),
        )
        for i, name in enumerate(tensor)
    }


def _number(sample: int | None) -> int:
    return NEVER if sample is None else sample


def _sample(number: int) -> int | None:
    return None if number == NEVER else number
