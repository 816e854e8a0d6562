"""Batches of equal shape from samples of any shapes: of a dataset, or of a part of one.

Every sample comes out exactly once, in an order that depends on the samples and the size alone.
Samples of one shape stay in order; a shape that waits for more is held back, but never more than
``PENDING`` batches of samples altogether: then the shape with the most samples goes out unfilled.
A model whose batch axis is fixed cannot take an unfilled batch, so there all of them wait.
"""

from collections.abc import Iterable, Iterator, Sequence
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
    """Return how many places are used: ``count``, the first ones, or all if None.

    Raises:
        DataError: there are none, or fewer than asked.
    """
    have = len(samples)
    if have == 0:
        raise DataError(NOTHING)
    if count is not None and have < count:
        raise DataError(
            f"asked for {count} samples, the dataset holds {have}; ask for fewer or add data"
        )
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


def check_remainder(
    sample: Sample, inputs: Sequence[TensorSpec], count: int, *, skipped: int = 0
) -> None:
    """Check that samples like this one fill the batches of a model whose batch axis is fixed.

    Args:
        sample: one of them.
        inputs: of the model.
        count: how many there are.
        skipped: how many more there were to be, for the message.

    Raises:
        DataError: some are left over, or no batch size suits all inputs.
    """
    fixed = _fixed(sample, inputs) or 1
    left = count % fixed
    if left:
        why = f" ({skipped} were skipped)" if skipped > 0 else ""
        raise DataError(
            f"the model's batch axis is fixed at {fixed}: of {count} samples {count - left} fit "
            f"and {left} are left over{why}; ask for a multiple of {fixed}, or make the axis "
            "dynamic"
        )


def batches(
    samples: Iterable[Sample],
    inputs: Sequence[TensorSpec],
    *,
    size: int,
    count: int | None = None,
    empty_ok: bool = False,
) -> Iterator[Batch]:
    """Yield samples in batches of at most ``size``.

    A batch axis that the model fixes at k makes batches of k whatever the ``size``; an input
    without batch axis makes batches of one.

    Args:
        samples: a dataset's, or a part of them.
        inputs: of the model.
        size: samples a batch.
        count: how many ``samples`` has places for, so that a remainder that does not fill a fixed
            batch axis is found before the first batch, not after the last.
        empty_ok: whether there may be no sample, because all of them were skipped.

    Raises:
        DataError: no samples; a NaN or infinity in one; samples left over that do not fill a fixed
            batch axis.
    """
    for group in _groups(samples, inputs, size=size, count=count, empty_ok=empty_ok):
        yield _stack(group, inputs, size)


def _groups(
    samples: Iterable[Sample],
    inputs: Sequence[TensorSpec],
    *,
    size: int,
    count: int | None,
    empty_ok: bool,
) -> Iterator[list[Sample]]:
    """Yield samples that make a batch; arguments as for ``batches``."""
    waiting: dict[Key, list[Sample]] = {}
    pending = seen = 0
    for sample in samples:
        fixed = _fixed(sample, inputs)
        if seen == 0 and count is not None:
            check_remainder(sample, inputs, count)
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
    if seen == 0 and not empty_ok:
        raise DataError(NOTHING)
    skipped = 0 if count is None else count - seen
    for group in waiting.values():
        check_remainder(group[0], inputs, len(group), skipped=skipped)
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


def _key(sample: Sample, inputs: Sequence[TensorSpec]) -> Key:
    arrays = [*(sample.arrays[spec.name] for spec in inputs), sample.label]
    return tuple(None if array is None else (array.shape, array.dtype.str) for array in arrays)


def _stack(group: list[Sample], inputs: Sequence[TensorSpec], size: int) -> Batch:
    per_batch = _fixed(group[0], inputs) or size
    arrays: dict[str, Array] = {}
    for spec in inputs:
        rows = [sample.arrays[spec.name] for sample in group]
        arrays[spec.name] = np.stack(rows) if batched(rows[0].ndim, spec) else rows[0].copy()
        if arrays[spec.name].dtype.kind in "fc" and not np.isfinite(arrays[spec.name]).all():
            for sample, row in zip(group, rows, strict=True):
                batch = sample.index // per_batch  # the same, however the dataset is cut in parts
                origin = f"sample {sample.index} ({sample.origin}), batch {batch}"
                check_finite(row, spec.name, origin)
    labels = None
    if group[0].label is not None:
        labels = np.stack([cast(Array, sample.label) for sample in group])
    return Batch(arrays, labels, np.array([sample.index for sample in group], np.int64))
