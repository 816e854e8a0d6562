"""The bootstrap covers the truth as often as it says, and keeps its laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantlab.intervals import MEMORY, bootstrap
from quantlab.measured import Interval

Floats = NDArray[np.float64]

samples = st.integers(1, 20).flatmap(
    lambda n: arrays(np.float64, n, elements=st.floats(-1e6, 1e6, allow_subnormal=False))
)


def mean_interval(x: Floats, seed: int = 0, resamples: int = 200) -> Interval:
    (interval,) = bootstrap(
        len(x), lambda drawn: x[drawn].mean(axis=-1)[None], seed=seed, resamples=resamples
    )
    return interval


@given(samples, st.integers(0, 99))
def test_the_interval_contains_the_value(x: Floats, seed: int) -> None:
    interval = mean_interval(x, seed)
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(math.fsum(x) / len(x), rel=1e-9, abs=1e-6)


@given(st.integers(1, 50), st.floats(-1e6, 1e6))
def test_equal_items_have_an_interval_without_width(n: int, x: float) -> None:
    interval = mean_interval(np.full(n, x))
    assert interval.low == interval.value == interval.high


def test_a_biased_statistic_still_lies_in_its_interval() -> None:
    x = np.arange(5.0)  # the range of a resample is never more, and mostly less
    (interval,) = bootstrap(5, lambda drawn: -np.ptp(x[drawn], axis=-1)[None], resamples=50)
    assert interval.low == interval.value == -4.0


def test_the_seed_decides() -> None:
    x = np.random.default_rng(1).normal(size=40)
    assert mean_interval(x, seed=7) == mean_interval(x, seed=7)
    assert mean_interval(x, seed=7) != mean_interval(x, seed=8)


def test_the_width_is_the_normal_theory_one_for_a_mean() -> None:
    x = np.random.default_rng(2).normal(size=400)
    interval = mean_interval(x, resamples=4000)
    expected = 2 * 1.96 * x.std() / math.sqrt(len(x))
    assert interval.high - interval.low == pytest.approx(expected, rel=0.05)  # 4000 draws: 2 %


def test_rows_share_their_draws() -> None:
    x = np.random.default_rng(3).normal(size=30)

    def statistic(drawn: NDArray[np.int64]) -> Floats:
        a, b = x[drawn].mean(axis=-1), (x[drawn] + 2).mean(axis=-1)
        return np.stack([a, b, b - a])

    a, b, difference = bootstrap(30, statistic)
    assert (b.low, b.high) == pytest.approx((a.low + 2, a.high + 2))
    assert (difference.low, difference.high) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize(("count", "width"), [(10, 1), (50_000, 6), (3_000_000, 1)])
def test_an_intermediate_array_stays_small(count: int, width: int) -> None:
    sizes = []

    def statistic(drawn: NDArray[np.int64]) -> Floats:
        sizes.append(len(drawn))
        return drawn[:, :1].T.astype(np.float64)

    bootstrap(count, statistic, resamples=20, width=width)
    assert sum(sizes) == 21  # all items once, then the draws
    assert all(size == 1 or size * count * width * 8 <= MEMORY for size in sizes)


def test_95_percent_of_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(4)
    runs = 300
    covered = 0
    for seed in range(runs):
        interval = mean_interval((rng.random(80) < 0.7).astype(np.float64), seed)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / runs <= 0.99
