"""Whether data fits a model's input, and the small text files beside data.

An array fits an input if its dtype is the input's, or converts to it without loss within the same
kind: float16 -> float32 and uint8 -> int64 are taken, float64 -> float32 and uint8 -> float32 are
refused with the line of NumPy that would do it, because only the user knows what they mean.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quantlab.datasets.base import Array
from quantlab.errors import DataError
from quantlab.records import TensorSpec

LARGEST_TEXT = 1 << 24
"""Bytes of a class list or a CSV of paths that are read; a million lines of 16 characters."""

INDEXED = re.compile(r"(\d+)\s*[\s,;:]\s*(\S.*)")


def batched(rank: int, spec: TensorSpec) -> bool:
    """Return whether a sample of ``rank`` lacks the input's first axis, the batch axis."""
    return rank == len(spec.shape) - 1


def check_fit(
    spec: TensorSpec,
    dtype: np.dtype[np.generic],
    shape: Sequence[int],
    origin: str,
    *,
    hint: str = "the first axis of an array counts samples",
) -> None:
    """Check a sample's dtype and shape (without batch axis, if the input has one).

    Args:
        spec: the input.
        dtype: of the sample.
        shape: of the sample.
        origin: where it came from, for the message.
        hint: what to do about a wrong shape.

    Raises:
        DataError: names the input, what it expects and what ``origin`` holds.
    """
    _check_dtype(spec, dtype, origin)
    expected = spec.shape[1:] if batched(len(shape), spec) else spec.shape
    if len(shape) == len(expected) and all(
        axis == size or not isinstance(axis, int)
        for axis, size in zip(expected, shape, strict=True)
    ):
        return
    raise DataError(
        f"input {spec}: expected samples of shape {_shape(spec.shape[1:])}, got {_shape(shape)} "
        f"in {origin}; {hint}"
    )


def convert(array: Array, spec: TensorSpec) -> Array:
    """Return an array that passed ``check_fit`` in the input's dtype, byte order included."""
    if array.dtype.kind == "U":
        return np.asarray(array)
    return np.asarray(array).astype(spec.dtype, copy=False)


def only_input(inputs: Sequence[TensorSpec], kind: str) -> TensorSpec:
    """Return the model's single input.

    Raises:
        DataError: the model has another number of inputs.
    """
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs) or "none"
        raise DataError(
            f"dataset {kind!r} feeds one input, the model has {len(inputs)} ({names}); "
            "use 'npz' or 'python'"
        )
    return inputs[0]


def check_finite(array: Array, name: str, origin: str) -> None:
    """Raise DataError if floating-point data hold NaN or an infinity; say how many and where."""
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))
    first = tuple(int(i) for i in bad[0])
    raise DataError(
        f"input {name!r}, {origin}: {len(bad)} of {array.size} values are NaN or infinite, "
        f"the first ({array[first]}) at {first}; repair or remove this sample"
    )


def as_label(value: Array, origin: str) -> Array:
    """Return a sample's label: a class index as an int64 scalar array, or a target array as it is.

    Raises:
        DataError: a single label that is no integer >= 0, or a target that is not numeric.
    """
    if value.ndim and value.dtype.kind in "biuf":
        return np.asarray(value)
    if value.ndim or value.dtype.kind not in "iu":
        raise DataError(
            f"label of {origin}: expected an integer class index, got {value.dtype}; convert "
            "labels with .astype(numpy.int64), or give other targets an axis of their own: (n, 1)"
        )
    if not 0 <= int(value) <= np.iinfo(np.int64).max:
        raise DataError(f"label of {origin}: expected a class index >= 0, got {int(value)}")
    return np.asarray(value).astype(np.int64)


def same_count(counts: dict[str, int], source: str) -> int:
    """Return the number of samples that all of ``counts`` (by array name) agree on.

    Raises:
        DataError: they differ.
    """
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{source}: arrays hold different numbers of samples: {listed}")
    return max(counts.values(), default=0)


def read_text(path: Path) -> str:
    """Return a small UTF-8 file, with or without byte order mark.

    Raises:
        DataError: missing, not a file, too large or not UTF-8.
    """
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise DataError(
                f"{path}: larger than {LARGEST_TEXT >> 20} MiB, so no list of names or paths"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from error


def class_names(path: Path | None) -> tuple[str, ...] | None:
    """Read names by class index; None without a file.

    Either one name a line, or an index and a name ("3 dress", "3,dress") on every line; indices
    then run from 0 without gaps, in any order.

    Raises:
        DataError: unreadable, empty, or indices that are missing or double.
    """
    if path is None:
        return None
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if lines and lines[0].lower() == "index,name":
        lines = lines[1:]
    if not lines:
        raise DataError(f"{path}: no class names; write one a line")
    matches = [INDEXED.fullmatch(line) for line in lines]
    pairs = [(int(match[1]), match[2].strip('"')) for match in matches if match]
    if len(pairs) < len(lines):
        return tuple(lines)
    if sorted(index for index, _ in pairs) != list(range(len(pairs))):
        raise DataError(
            f"{path}: class indices of {len(pairs)} lines must be 0 to {len(pairs) - 1}, each once"
        )
    return tuple(name for _, name in sorted(pairs))


def _check_dtype(spec: TensorSpec, dtype: np.dtype[np.generic], origin: str) -> None:
    expected = _numpy_type(spec.dtype)
    if expected is None:
        raise DataError(f"input {spec}: samples of type {spec.dtype} cannot be given")
    text = expected.kind in "OUT" and dtype.kind == "U"
    kinds = {expected.kind, dtype.kind}
    same_kind = len(kinds) == 1 or kinds == {"i", "u"}
    if text or (expected.kind in "biufc" and same_kind and np.can_cast(dtype, expected, "safe")):
        return
    example = f"array.astype(numpy.{expected})"
    if expected.kind == "f" and dtype.kind in "biu":
        example += " / 255, or whatever scaling the model was trained with"
    raise DataError(
        f"input {spec}: expected {expected}, got {dtype} in {origin}, which does not convert "
        f"without loss or choice; store {example}"
    )


def _numpy_type(name: str) -> np.dtype[np.generic] | None:
    """Return NumPy's own type of that name; others appear once some package registers them."""
    try:
        found: np.dtype[np.generic] = np.dtype(name)
    except TypeError:
        return None
    return found if found.isbuiltin == 1 else None


def _shape(shape: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if axis is None else str(axis) for axis in shape)})"
