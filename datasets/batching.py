"""Batches of equal shape from samples of any shapes.

Every sample comes out exactly once, in an order that depends on the samples and the size alone.
Samples of one shape stay in order; a shape that waits for more is held back, but never more than
``PENDING`` batches of samples altogether: then the shape with the most samples goes out unfilled.
A model whose batch axis is fixed cannot take an unfilled batch, so there all of them wait.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import cast

import numpy as np

from quantlab.datasets.base import Array, Batch, Sample, Samples
from quantlab.datasets.checks import batched, check_finite
from quantlab.errors import DataError
from quantlab.records import TensorSpec

PENDING = 8
"""Batches' worth of samples that wait for others of their shape."""

NOTHING = "the dataset holds no samples"

Key = tuple[tuple[tuple[int, ...], str] | None, ...]


def take(samples: Samples, count: int | None) -> int:
    """Return how many samples are used: ``count``, the first ones, or all if None.

    Raises:
        DataError: there are none, or fewer than asked.
    """
    have = len(samples)
    if have == 0:
        raise DataError(NOTHING)
    if count is not None and have < count:
        raise _too_few(have, count)
    return have if count is None else count


def batch_size(inputs: Sequence[TensorSpec], asked: int) -> int:
    """Return the batch size that the model allows: ``asked``, or what its batch axis is fixed at.

    Inputs that disagree on the first axis leave only batches of one.
    """
    axes = {spec.shape[0] for spec in inputs if spec.shape}
    if not axes or any(isinstance(axis, int) for axis in axes):
        only = axes.pop() if len(axes) == 1 else 1
        return only if isinstance(only, int) else 1
    return asked


def batches(
    samples: Samples, inputs: Sequence[TensorSpec], *, size: int, limit: int | None = None
) -> Iterator[Batch]:
    """Yield the first ``limit`` samples in batches of at most ``size``.

    A batch axis that the model fixes at k makes batches of k whatever the ``size``; an input
    without batch axis makes batches of one.

    Raises:
        DataError: no samples, or fewer than ``limit`` though none was skipped; a NaN or infinity in
            one; samples left over that do not fill a fixed batch axis.
    """
    for number, group in enumerate(_groups(samples, inputs, size=size, limit=limit)):
        yield _stack(group, inputs, number)


def _groups(
    samples: Samples, inputs: Sequence[TensorSpec], *, size: int, limit: int | None
) -> Iterator[list[Sample]]:
    """Yield samples that make a batch; arguments as for ``batches``."""
    waiting: dict[Key, list[Sample]] = {}
    pending = seen = 0
    for sample in islice(samples, limit):
        fixed = _fixed(sample, inputs)
        if seen == 0 and fixed and limit is not None:
            _check_remainder(limit, fixed)  # now, not after the last batch
        seen += 1
        pending += 1
        key = _key(sample, inputs)
        waiting.setdefault(key, []).append(sample)
        if len(waiting[key]) < (fixed or size):
            if fixed or pending < PENDING * size:
                continue
            key = max(waiting, key=lambda key: len(waiting[key]))
        group = waiting.pop(key)
        pending -= len(group)
        yield group
    if seen == 0:
        raise DataError(NOTHING)
    if limit is not None and seen < limit and not samples.skipped:
        raise _too_few(seen, limit)
    for group in waiting.values():
        _check_remainder(len(group), _fixed(group[0], inputs) or 1)
        yield group


def _fixed(sample: Sample, inputs: Sequence[TensorSpec]) -> int | None:
    """Return the size that the model wants batches of this sample to have, if it does."""
    with_axis = [spec for spec in inputs if batched(sample.arrays[spec.name].ndim, spec)]
    sizes = {axis for spec in with_axis if isinstance(axis := spec.shape[0], int)}
    if len(with_axis) < len(inputs):
        sizes.add(1)
    if len(sizes) > 1:
        listed = ", ".join(map(str, inputs))
        raise DataError(
            f"{sample.origin}: no batch size suits all inputs ({listed}): {sorted(sizes)}; give "
            "the whole array, batch axis included, for inputs that are not fed by samples"
        )
    return sizes.pop() if sizes else None


def _check_remainder(count: int, fixed: int) -> None:
    left = count % fixed
    if left:
        raise DataError(
            f"the model's batch axis is fixed at {fixed}: of {count} samples {count - left} fit "
            f"and {left} are left over; ask for a multiple of {fixed}, or make the axis dynamic"
        )


def _key(sample: Sample, inputs: Sequence[TensorSpec]) -> Key:
    arrays = [*(sample.arrays[spec.name] for spec in inputs), sample.label]
    return tuple(None if array is None else (array.shape, array.dtype.str) for array in arrays)


def _stack(group: list[Sample], inputs: Sequence[TensorSpec], number: int) -> Batch:
    arrays: dict[str, Array] = {}
    for spec in inputs:
        rows = [sample.arrays[spec.name] for sample in group]
        arrays[spec.name] = np.stack(rows) if batched(rows[0].ndim, spec) else rows[0].copy()
        if arrays[spec.name].dtype.kind in "fc" and not np.isfinite(arrays[spec.name]).all():
            for sample, row in zip(group, rows, strict=True):
                check_finite(
                    row, spec.name, f"sample {sample.index} ({sample.origin}), batch {number}"
                )
    labels = None
    if group[0].label is not None:
        labels = np.stack([cast(Array, sample.label) for sample in group])
    return Batch(arrays, labels, np.array([sample.index for sample in group], np.int64))


def _too_few(have: int, asked: int) -> DataError:
    return DataError(
        f"asked for {asked} samples, the dataset holds {have}; ask for fewer or add data"
    )
