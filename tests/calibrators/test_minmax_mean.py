"""The average of the batches' largest magnitudes equals exact arithmetic, and stays among them."""

from dataclasses import replace
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.calibrators.minmax_mean import MinMaxMean
from quantlab.errors import CalibrationError
from quantlab.histogram import Histogram, from_array
from tests.strategies import magnitudes

MAXIMA = st.lists(st.one_of(st.just(0.0), st.just(-np.inf), magnitudes()), min_size=1, max_size=30)
CONSTANTS = st.sampled_from([0.01, 0.25, 1.0])


def of(maxima: list[float]) -> Histogram:
    """Return the histogram of a tensor with these maxima, one a batch."""
    finite = [value for value in maxima if value >= 0] or [0.0]
    return replace(from_array("t", np.array(finite)), batch_amax=np.array(maxima))


def moving(maxima: list[Fraction], constant: Fraction) -> Fraction:
    average = maxima[0]
    for value in maxima[1:]:
        average = (1 - constant) * average + constant * value
    return average


@given(MAXIMA.filter(lambda maxima: max(maxima) >= 0))
def test_the_plain_mean_is_exact(maxima: list[float]) -> None:
    finite = [Fraction(value) for value in maxima if value >= 0]
    mean = sum(finite, Fraction(0)) / len(finite)
    # One rounding of the sum and one of the quotient.
    assert MinMaxMean().threshold(of(maxima)) == pytest.approx(float(mean), rel=3e-16, abs=0)


@given(MAXIMA.filter(lambda maxima: max(maxima) >= 0), CONSTANTS)
def test_the_moving_average_equals_the_recursion(maxima: list[float], constant: float) -> None:
    finite = [Fraction(value) for value in maxima if value >= 0]
    expected = float(moving(finite, Fraction(constant)))
    found = MinMaxMean(constant).threshold(of(maxima))
    # Where large and small meet, the small digits are lost: relative to the largest.
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-14 * max(maxima))


@given(magnitudes(), st.integers(1, 60), st.sampled_from([None, 0.01, 0.3]))
def test_equal_batches_are_minmax_exactly(
    amax: float, batches: int, constant: float | None
) -> None:
    assert MinMaxMean(constant).threshold(of([amax] * batches)) == amax


@given(MAXIMA.filter(lambda maxima: max(maxima) >= 0), st.randoms(use_true_random=False))
def test_the_plain_mean_does_not_depend_on_the_batches_order(
    maxima: list[float], random: Random
) -> None:
    shuffled = list(maxima)
    random.shuffle(shuffled)
    assert MinMaxMean().threshold(of(shuffled)) == MinMaxMean().threshold(of(maxima))


def test_one_outlier_counts_as_one_batch() -> None:
    assert MinMaxMean().threshold(of([1.0, 1.0, 61.0, 1.0])) == 16.0


def test_the_moving_average_starts_with_the_first_batch_and_follows_the_last() -> None:
    assert MinMaxMean(0.5).threshold(of([8.0, 4.0])) == 6.0
    assert MinMaxMean(0.5).threshold(of([4.0, 8.0, 8.0])) == 7.0
    assert MinMaxMean(1.0).threshold(of([8.0, 4.0, 2.0])) == 2.0


def test_larger_batches_give_larger_thresholds() -> None:
    """What the documents say of it: it alone depends on how the samples are cut."""
    x = np.abs(np.random.default_rng(0).normal(size=(64, 50)))
    h = from_array("t", x)
    found = [
        MinMaxMean().threshold(replace(h, batch_amax=x.reshape(64 // size, -1).max(axis=1)))
        for size in (1, 8, 64)
    ]
    assert found[0] < found[1] < found[2] == h.amax


@pytest.mark.parametrize("maxima", [None, np.empty(0), np.array([-np.inf, -np.inf])])
def test_maxima_that_were_not_kept_are_named(maxima: NDArray[np.float64] | None) -> None:
    h = replace(from_array("relu1", np.ones(3)), batch_amax=maxima)
    with pytest.raises(CalibrationError, match=r"'relu1'.*each batch.*'quantlab calibrate' again"):
        MinMaxMean().threshold(h)
