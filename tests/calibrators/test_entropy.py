"""Entropy equals the published method, written out bin by bin."""

import math
from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.calibrators.entropy import Entropy
from quantlab.calibrators.kernels import divergences
from quantlab.calibrators.quality import sqnr_db
from quantlab.histogram import Histogram, empty, from_array
from tests.strategies import histograms

Counts = list[int]


def expand(counts: Counts, levels: int) -> list[float]:
    """Merge ``counts`` to ``levels`` and spread each level over its bins that are not empty."""
    level_of = [j * levels // len(counts) for j in range(len(counts))]
    mass, filled = [0] * levels, [0] * levels
    for count, level in zip(counts, level_of, strict=True):
        mass[level] += count
        filled[level] += count > 0
    return [
        mass[level] / filled[level] if count else 0.0
        for count, level in zip(counts, level_of, strict=True)
    ]


def divergence(counts: Counts, m: int, levels: int) -> float:
    """Return KL(P || Q) of the candidate that keeps ``m`` bins."""
    outliers = sum(counts[m:])
    if outliers > 0 and counts[m - 1] == 0:  # then P > 0 where Q = 0
        return math.inf
    p, q = counts[:m], expand(counts[:m], levels)
    p[-1] += outliers
    p_sum, q_sum = sum(p), math.fsum(q)
    terms = (a / p_sum * math.log(a / p_sum / (b / q_sum)) for a, b in zip(p, q, strict=True) if a)
    return math.fsum(terms)


def every_divergence(counts: Counts, levels: int) -> list[float]:
    return [divergence(counts, m, levels) for m in range(levels, len(counts) + 1)]


def check_against_oracle(h: Histogram, entropy: Entropy) -> None:
    """The threshold's candidate has the least divergence, and none further out has as little."""
    counts = h.counts[: h.used].tolist()
    if entropy.zero_bin == "neighbour":
        counts[0] = counts[1]
    costs = every_divergence(counts, entropy.levels)
    m = entropy.threshold(h) / h.width - 0.5
    assert m == int(m)
    found = int(m) - entropy.levels
    assert costs[found] == pytest.approx(min(costs), rel=0, abs=1e-11)
    assert all(cost > min(costs) + 1e-13 for cost in costs[found + 1 :])


def test_the_published_example() -> None:
    assert expand([1, 0, 2, 3, 5, 3, 1, 7], 2) == [2, 0, 2, 2, 4, 4, 4, 4]


def test_the_published_example_in_the_kernel() -> None:
    p, q = [1, 0, 2, 3, 5, 3, 1, 7], [2, 0, 2, 2, 4, 4, 4, 4]
    by_hand = sum(a / 22 * math.log(a / b) for a, b in zip(p, q, strict=True) if a)
    assert divergences(np.array(p), 2)[-1] == pytest.approx(by_hand, rel=1e-14)


COUNTS = hnp.arrays(
    np.int64,
    st.integers(2, 150),
    elements=st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 10**15)),
)


@given(COUNTS, st.integers(2, 40))
def test_every_candidate_equals_the_oracle(counts: NDArray[np.int64], levels: int) -> None:
    counts[-1] = max(counts[-1], 1)
    levels = min(levels, len(counts))
    found = divergences(counts, levels)
    expected = every_divergence(counts.tolist(), levels)
    # Sums of terms of order 1, each rounded once: 1e-12 is a thousand roundings.
    assert found.tolist() == pytest.approx(expected, rel=0, abs=1e-12)


@given(
    st.dictionaries(st.integers(0, 4095), st.integers(1, 10**9), max_size=12),
    st.integers(2048, 4095),
    st.sampled_from([Entropy(), Entropy(zero_bin="count"), Entropy(levels=255)]),
)
@settings(max_examples=25)
def test_the_threshold_is_the_best_of_all_candidates(
    filled: dict[int, int], last: int, entropy: Entropy
) -> None:
    h = empty("t")
    for index, count in {**filled, last: 1}.items():
        h.counts[index] = count
    amax = float(h.used - 1)
    check_against_oracle(replace(h, exponent=0, minimum=0.0, maximum=amax), entropy)


def test_the_threshold_of_a_dense_histogram_is_the_best_of_all() -> None:
    x = np.random.default_rng(7).laplace(size=30_000)
    check_against_oracle(from_array("t", x / np.abs(x).max()), Entropy())


@given(histograms(), st.integers(0, 10**6))
def test_zeros_do_not_move_the_threshold(h: Histogram, zeros: int) -> None:
    counts = h.counts.copy()
    counts[0] += zeros
    more = replace(h, counts=counts, zeros=h.zeros + zeros)
    assert Entropy().threshold(more) == Entropy().threshold(h)


@given(histograms(), st.sampled_from(["neighbour", "count"]))
def test_the_threshold_is_the_centre_of_the_first_bin_left_out(h: Histogram, zero_bin: str) -> None:
    entropy = Entropy(zero_bin="count") if zero_bin == "count" else Entropy()
    bins = entropy.threshold(h) / h.width - 0.5
    assert bins == int(bins)
    assert min(128, h.used) <= bins <= h.used
    assert h.counts[int(bins) - 1] > 0


def test_the_range_of_few_levels_is_kept_whole_as_in_tensorrts_caches() -> None:
    """Pixels k / 255: TensorRT writes 2048.5 / 2048 / 127 for them."""
    h = from_array("image", np.arange(256) / 255)
    assert h.used == 2049
    assert Entropy().threshold(h) == 2049.5 / 2048


def test_a_single_outlier_is_clipped() -> None:
    x = np.random.default_rng(0).normal(size=200_000)
    x[0] = 60.0
    assert Entropy().threshold(from_array("t", x)) < 8


def test_clipping_that_gains_nothing_is_not_done() -> None:
    """Two bins: keeping either alone has no divergence at all, the published tie."""
    h = from_array("t", np.array([0.7] * 5 + [1.0] * 3))
    assert Entropy().threshold(h) == (h.used + 0.5) * h.width


def test_zeros_counted_as_published_ruin_a_relu() -> None:
    """The reason for the first bin's rule, in decibels (entropy's docstring)."""
    x = np.maximum(np.random.default_rng(0).normal(size=2_000_000), 0)
    h = from_array("relu", x)
    default, published = (
        sqnr_db(h, entropy.threshold(h)) for entropy in (Entropy(), Entropy(zero_bin="count"))
    )
    assert default == pytest.approx(39.4, abs=0.5)
    assert published == pytest.approx(19.4, abs=0.5)
