"""Percentile equals a plain walk over the sorted elements, and keeps its promise."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.percentile import Percentile
from quantlab.histogram import Histogram, from_array
from tests.strategies import Floats, activations, histograms

PERCENTILES = st.one_of(
    st.sampled_from([50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0]),
    st.floats(0.001, 100.0),
)


def oracle(x: Floats, percentile: float) -> float:
    """Sort, count up to the element that must be kept, and take its bin's upper edge."""
    ordered = sorted(abs(v) for v in x.tolist())
    kept = math.ceil(Decimal(repr(percentile)) * len(ordered) / 100)
    width = 2.0 ** (math.frexp(ordered[-1])[1] - 12)
    upper = (math.floor(ordered[kept - 1] / width) + 1) * width
    return float(min(upper, ordered[-1]))


@given(activations(), PERCENTILES)
def test_equals_the_oracle(x: Floats, percentile: float) -> None:
    assert Percentile(percentile).threshold(from_array("t", x)) == oracle(x, percentile)


@given(activations(), PERCENTILES)
def test_clips_no_more_than_it_says(x: Floats, percentile: float) -> None:
    clipped = np.count_nonzero(np.abs(x) > Percentile(percentile).threshold(from_array("t", x)))
    assert Decimal(int(clipped)) <= (100 - Decimal(repr(percentile))) * len(x) / 100


@given(histograms(), PERCENTILES, PERCENTILES)
def test_is_monotone_in_the_percentile(h: Histogram, a: float, b: float) -> None:
    low, high = sorted([a, b])
    assert Percentile(low).threshold(h) <= Percentile(high).threshold(h)


@given(histograms())
def test_all_of_it_is_minmax(h: Histogram) -> None:
    assert Percentile(100.0).threshold(h) == MinMax().threshold(h)


@pytest.mark.parametrize(("percentile", "kept"), [(99.9, 999), (99.0, 990), (57.3, 573)])
def test_the_written_decimal_counts_not_its_binary_neighbour(percentile: float, kept: int) -> None:
    x = np.arange(1, 1001) / 1000  # every element in a bin of its own
    threshold = Percentile(percentile).threshold(from_array("t", x))
    assert np.count_nonzero(x <= threshold) == kept


def test_zeros_are_elements() -> None:
    x = np.array([0.0] * 99 + [8.0])
    assert Percentile(99).threshold(from_array("t", x)) == 8.0 / 2048
    assert Percentile(99.01).threshold(from_array("t", x)) == 8.0
