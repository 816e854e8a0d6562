"""The collector's kernel equals the plain definition, for any cut, order and element type."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quantlab.collect.accumulator import Accumulators
from quantlab.collect.kernel import BLOCK
from quantlab.histogram import Histogram, from_array, merge

FLOATS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.tuples(st.integers(1, 6), st.integers(0, 40)),
)
"""NaN, infinities and subnormal numbers among them."""


def collected(array: NDArray[np.generic], cuts: list[NDArray[np.int64]]) -> Histogram:
    """Add the rows of ``array``, one call a cut."""
    found = Accumulators(["t"])
    for rows in cuts:
        found.add(0, array[rows], rows)
    return found.take()["t"]


@given(FLOATS, st.data())
def test_any_cut_in_any_order_equals_one_pass(
    array: NDArray[np.floating], data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(array)))), np.int64)
    size = data.draw(st.integers(1, len(array)))
    cuts = [order[i : i + size] for i in range(0, len(order), size)]
    assert collected(array, cuts) == from_array("t", array)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]),
    st.floats(-44, 37),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([-np.inf, 0.0]),
)
def test_blocks_of_any_scale_equal_the_definition(
    seed: int, size: int, scale: float, dtype: type[np.floating], lowest: float
) -> None:
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.standard_normal((2, size)) * 10.0**scale, lowest).astype(dtype)
    assert collected(values, [np.array([0]), np.array([1])]) == from_array("t", values)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_a_bad_element_is_counted_apart_and_its_sample_named(bad: float, place: int) -> None:
    values = np.ones((3, 3 * BLOCK), np.float32)
    values[1, place] = bad
    samples = np.array([17, 11, 40])
    found = Accumulators(["t"])
    found.add(0, values, samples)
    histogram = found.take()["t"]
    assert (histogram.nans, histogram.infs) == ((1, 0) if np.isnan(bad) else (0, 1))
    assert (histogram.first_nan if np.isnan(bad) else histogram.first_inf) == 11
    assert histogram.total == values.size - 1


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int32, np.int64, np.bool_, ml_dtypes.bfloat16]
)
def test_other_element_types_are_counted_by_value(dtype: type[np.generic]) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(dtype)
    found = Accumulators(["t"])
    found.add(0, values, np.array([0, 1]))
    assert found.take()["t"] == from_array("t", values.astype(np.float64))


def test_a_tensor_without_batch_axis_is_the_first_samples() -> None:
    found = Accumulators(["t"])
    found.add(0, np.array([1.0, np.nan, 2.0], np.float32), np.array([5, 6]))
    assert found.take()["t"].first_nan == 5


def test_what_was_taken_does_not_change_and_counting_starts_anew() -> None:
    small, large = np.ones((1, 8), np.float32), np.full((1, 8), 1e6, np.float32)
    found = Accumulators(["t"])
    found.add(0, small, np.array([0]))
    before = found.take()["t"]
    found.add(0, large, np.array([1]))
    assert before == from_array("t", small)
    assert found.take()["t"] == from_array("t", large, 1)


@settings(max_examples=60)
@given(
    st.lists(
        hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(0, 3 * BLOCK)), fill=st.just(1)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_a_buffer_of_tensors_equals_each_tensor_alone(
    arrays: list[NDArray[np.float32]], times: int
) -> None:
    """The fused call goes on behind a tensor that the kernel has to leave to the caller."""
    names = [f"t{i}" for i in range(len(arrays))]
    sizes = [array.size for array in arrays]
    starts = np.cumsum([0, *sizes[:-1]])
    buffer = np.concatenate([array.reshape(-1) for array in arrays])
    views = [
        buffer[start : start + array.size].reshape(array.shape)
        for start, array in zip(starts, arrays, strict=True)
    ]
    places = np.stack([starts, sizes], axis=1).astype(np.int64)
    found = Accumulators(names)
    for _ in range(times):
        found.add_buffer(buffer, places, views, np.array([0, 1]), [0] * len(views))
    expected = {
        name: merge([from_array(name, array)] * times)
        for name, array in zip(names, arrays, strict=True)
    }
    assert found.take() == expected


@pytest.mark.parametrize(
    ("shape", "axis", "place", "sample"),
    [
        ((3, 4), 0, (2, 1), 9),
        ((4, 3, 5), 1, (0, 1, 4), 8),  # a transposed tensor
        ((4, 5, 3), 2, (3, 4, 0), 7),
        ((6, 4), 0, (3, 0), 8),  # two rows a sample
        ((3, 4), None, (2, 1), 7),
        ((4, 4), 0, (3, 3), 7),  # three samples do not share four rows
        ((4,), 1, (3,), 7),
    ],
)
def test_a_bad_element_is_the_samples_that_its_axis_says(
    shape: tuple[int, ...], axis: int | None, place: tuple[int, ...], sample: int
) -> None:
    values = np.ones(shape, np.float32)
    values[place] = np.nan
    found = Accumulators(["t"])
    found.add(0, values, np.array([7, 8, 9]), axis)
    assert found.take()["t"].first_nan == sample


def test_ranges_are_of_what_came_since_the_last_call() -> None:
    found = Accumulators(["a", "b"])
    found.add(0, np.array([[1.0, -3.0]], np.float32), np.array([0]))
    assert found.ranges().tolist() == [[-3.0, 1.0], [np.inf, -np.inf]]
    found.add(0, np.array([[0.5, np.nan]], np.float32), np.array([1]))
    assert found.ranges().tolist() == [[0.5, 0.5], [np.inf, -np.inf]]
    taken = found.take()["a"]
    assert (taken.minimum, taken.maximum) == (-3.0, 1.0)
