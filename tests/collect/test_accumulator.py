"""The collector's kernel equals the plain definition, for any cut, order and element type."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quantlab.collect.accumulator import Accumulator
from quantlab.collect.kernel import BLOCK
from quantlab.histogram import Histogram, from_array, merge

FLOATS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.tuples(st.integers(1, 6), st.integers(0, 40)),
)
"""NaN, infinities and subnormal numbers among them."""


def collected(array: NDArray[np.generic], cuts: list[NDArray[np.int64]]) -> Histogram:
    """Add the rows of ``array``, one call a cut."""
    found = Accumulator("t")
    for rows in cuts:
        found.add(array[rows], rows)
    return found.histogram()


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
    found = Accumulator("t")
    found.add(values, samples)
    histogram = found.histogram()
    assert (histogram.nans, histogram.infs) == ((1, 0) if np.isnan(bad) else (0, 1))
    assert (histogram.first_nan if np.isnan(bad) else histogram.first_inf) == 11
    assert histogram.total == values.size - 1


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int32, np.int64, np.bool_, ml_dtypes.bfloat16]
)
def test_other_element_types_are_counted_by_value(dtype: type[np.generic]) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(dtype)
    found = Accumulator("t")
    found.add(values, np.array([0, 1]))
    assert found.histogram() == from_array("t", values.astype(np.float64))


def test_a_tensor_without_batch_axis_is_the_first_samples() -> None:
    found = Accumulator("t")
    found.add(np.array([1.0, np.nan, 2.0], np.float32), np.array([5, 6]))
    assert found.histogram().first_nan == 5


def test_a_histogram_handed_out_does_not_change_later() -> None:
    found = Accumulator("t")
    found.add(np.ones((1, 8), np.float32), np.array([0]))
    before = found.histogram()
    found.add(np.full((1, 8), 1e6, np.float32), np.array([1]))
    assert before == from_array("t", np.ones((1, 8), np.float32))
    assert (
        merge([before, from_array("t", np.full((1, 8), 1e6, np.float32), 1)]) == found.histogram()
    )
