"""Batching loses, doubles and pads nothing, whatever the shapes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.datasets.base import Array, Batch, Sample
from quantlab.datasets.batching import PENDING, batch_size, batches, check_remainder, take
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.errors import DataError
from quantlab.records import TensorSpec
from tests.datasets.files import IMAGE, InMemory, in_memory, random

TEXT = (TensorSpec("tokens", "int64", ("N", "S")), TensorSpec("mask", "float32", ("N", "S")))
FIXED = (TensorSpec("x", "float32", (4, 2)),)


def text(lengths: list[int]) -> InMemory:
    """Make samples of these lengths; each holds its index, so none can be mistaken."""
    return in_memory(
        [
            {"tokens": np.full(length, at), "mask": np.full(length, at, np.float32)}
            for at, length in enumerate(lengths)
        ]
    )


def rows(count: int) -> InMemory:
    return in_memory([{"x": np.full(2, at, np.float32)} for at in range(count)])


lengths = st.lists(st.integers(0, 5), min_size=1, max_size=60)
sizes = st.integers(1, 9)


@given(lengths, sizes, st.data())
def test_each_sample_of_a_part_comes_out_once(
    lengths: list[int], size: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(lengths) - 1))
    stop = data.draw(st.integers(start + 1, len(lengths)))
    count = data.draw(st.sampled_from([None, stop - start]))
    part = text(lengths).part(start, stop)
    found = list(batches(part, TEXT, size=size, count=count))
    indices = [int(index) for batch in found for index in batch.indices]
    assert Counter(indices) == Counter(range(start, stop))


@given(lengths, sizes)
def test_a_batch_holds_its_samples_whole_and_in_order(lengths: list[int], size: int) -> None:
    for batch in batches(text(lengths), TEXT, size=size):
        assert 1 <= batch.size <= size
        assert sorted(batch.indices) == list(batch.indices)
        assert batch.labels is not None
        np.testing.assert_array_equal(batch.labels, batch.indices)
        for at, index in enumerate(batch.indices):
            expected = np.full(lengths[index], index)
            np.testing.assert_array_equal(batch.arrays["tokens"][at], expected, strict=True)
            np.testing.assert_array_equal(batch.arrays["mask"][at], expected.astype(np.float32))


@given(st.integers(1, 50), sizes)
def test_equal_shapes_fill_every_batch_but_the_last(count: int, size: int) -> None:
    found = [batch.size for batch in batches(text([3] * count), TEXT, size=size)]
    assert found == [size] * (count // size) + [count % size] * (count % size > 0)


@given(lengths, sizes, sizes, st.randoms(use_true_random=False))
def test_the_fingerprint_knows_neither_size_nor_order(
    lengths: list[int], one: int, other: int, shuffler: Random
) -> None:
    samples = text(lengths)
    shuffled = list(samples.items)
    shuffler.shuffle(shuffled)
    first = fingerprint(list(batches(samples, TEXT, size=one)))
    assert first == fingerprint(list(batches(InMemory(tuple(shuffled)), TEXT, size=other)))


@given(lengths, st.data())
def test_the_fingerprint_knows_every_sample(lengths: list[int], data: st.DataObject) -> None:
    changed = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=60))
    same = fingerprint(list(batches(text(lengths), TEXT, size=4))) == fingerprint(
        list(batches(text(changed), TEXT, size=4))
    )
    assert same == (list(enumerate(lengths)) == list(enumerate(changed)))


def fingerprint(found: list[Batch]) -> str:
    result = Fingerprint()
    for batch in found:
        result.add(batch)
    return result.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.zeros((1, 4), np.float32)},
        {"y": np.zeros((1, 2, 2), np.float32)},
        {"x": np.zeros((1, 2, 2), np.int32)},
        {"x": np.full((1, 2, 2), -0.0, np.float32)},
        {"x": np.zeros((1, 2, 2), np.float32), "y": np.zeros((1, 0))},
    ],
)
def test_the_fingerprint_covers_name_dtype_shape_and_bytes(other: dict[str, Array]) -> None:
    base = Batch({"x": np.zeros((1, 2, 2), np.float32)}, None, np.zeros(1, np.int64))
    assert fingerprint([base]) != fingerprint([Batch(other, None, np.zeros(1, np.int64))])
    assert fingerprint([base]) != fingerprint([base, base])


def test_waiting_samples_are_bounded() -> None:
    taken = 0

    class Counting(InMemory):
        def __iter__(self) -> Iterator[Sample]:
            nonlocal taken
            for sample in self.items:
                taken += 1
                yield sample

    shapes = [at % 40 for at in range(200)]  # 40 shapes, so hardly a batch fills by itself
    given_out = 0
    for batch in batches(Counting(text(shapes).items), TEXT, size=3):
        given_out += batch.size
        assert taken - given_out < PENDING * 3
    assert given_out == 200


def test_samples_with_and_without_label_do_not_mix() -> None:
    labelled, bare = rows(2).items
    samples = InMemory((labelled, replace(bare, label=None)))
    found = list(batches(samples, (TensorSpec("x", "float32", ("N", 2)),), size=2))
    assert [batch.labels is None for batch in found] == [False, True]


def test_a_fixed_batch_axis_decides_the_size() -> None:
    assert [batch.size for batch in batches(rows(8), FIXED, size=32)] == [4, 4]
    assert [batch.size for batch in batches(rows(8), FIXED, size=1, count=8)] == [4, 4]


def test_what_does_not_fill_a_fixed_batch_is_refused_before_work_where_it_can_be_known() -> None:
    message = r"fixed at 4: of 10 samples 8 fit and 2 are left over; ask for a multiple of 4"
    with pytest.raises(DataError, match=message):
        next(batches(rows(12).part(0, 10), FIXED, size=4, count=10))
    late = batches(rows(10), FIXED, size=4, count=12)
    assert [next(late).size, next(late).size] == [4, 4]
    with pytest.raises(DataError, match=r"of 2 samples 0 fit and 2 are left over \(2 were skipped"):
        next(late)


def test_a_remainder_can_be_found_without_a_pass() -> None:
    sample = rows(1).items[0]
    check_remainder(sample, FIXED, 12)
    check_remainder(sample, (TensorSpec("x", "float32", ("N", 2)),), 13)
    with pytest.raises(DataError, match="of 13 samples 12 fit and 1 are left over; ask for"):
        check_remainder(sample, FIXED, 13)


def test_inputs_without_batch_axis_make_batches_of_one() -> None:
    inputs = (
        TensorSpec("image", "float32", ("N", 3)),
        TensorSpec("state", "float32", (2, 1, 5)),
        TensorSpec("threshold", "float32", ()),
    )
    samples = in_memory(
        [
            {"image": random((3,)), "state": random((2, 1, 5)), "threshold": np.array(at, "f4")}
            for at in range(3)
        ]
    )
    found = list(batches(samples, inputs, size=8))
    shapes = [[batch.arrays[spec.name].shape for spec in inputs] for batch in found]
    assert shapes == [[(1, 3), (2, 1, 5), ()]] * 3
    assert [float(batch.arrays["threshold"]) for batch in found] == [0, 1, 2]


def test_batch_axes_that_contradict_each_other_are_named() -> None:
    inputs = (TensorSpec("a", "float32", (2, 3)), TensorSpec("b", "float32", (4, 3)))
    with pytest.raises(DataError, match=r"no batch size suits.*a float32\[2, 3\].*\[2, 4\]"):
        next(batches(in_memory([{"a": random((3,)), "b": random((3,))}]), inputs, size=2))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([("N", 3)], 32),
        ([(None, 3), ("M", "S")], 32),
        ([("N", 3), ()], 32),
        ([(8, 3)], 8),
        ([(1, 3), (1, 128)], 1),
        ([(1, 128), (2, 1, 64)], 1),
        ([("N", 3), (2, 1, 64)], 1),
        ([()], 1),
        ([], 1),
    ],
)
def test_batch_size_follows_the_model(
    shapes: list[tuple[int | str | None, ...]], expected: int
) -> None:
    inputs = [TensorSpec(f"x{at}", "float32", shape) for at, shape in enumerate(shapes)]
    assert batch_size(inputs, 32) == expected


def test_take_answers_how_many_or_says_how_many_there_are() -> None:
    assert take(rows(5), None) == 5
    assert take(rows(5), 3) == 3
    with pytest.raises(DataError, match="asked for 6 samples, the dataset holds 5"):
        take(rows(5), 6)
    with pytest.raises(DataError, match="holds no samples"):
        take(rows(0), None)


def test_no_samples_are_an_error_unless_that_is_expected() -> None:
    with pytest.raises(DataError, match="holds no samples"):
        next(batches(rows(0), FIXED, size=2))
    assert list(batches(rows(8).part(8, 8), FIXED, size=2, count=4, empty_ok=True)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(value: float) -> None:
    arrays = [random((1, 4, 3)) for _ in range(5)]
    arrays[3][0, 2, 1] = value
    samples = in_memory([{"image": array} for array in arrays])
    message = (
        rf"input 'image', sample 3 \(s\[3\]\), batch 1: 1 of 12 values are NaN or infinite, "
        rf"the first \({value}\) at \(0, 2, 1\)"
    )
    found = batches(samples, (IMAGE,), size=2)
    next(found)
    for rest in (found, batches(samples.part(2, 5), (IMAGE,), size=2)):
        with pytest.raises(DataError, match=message):
            next(rest)


def test_batches_own_their_memory() -> None:
    """What a runner or user writes into a batch never reaches the data."""
    samples = rows(4)
    for batch in batches(samples, FIXED, size=4):
        batch.arrays["x"][:] = -1
    assert [float(sample.arrays["x"][0]) for sample in samples] == [0, 1, 2, 3]
