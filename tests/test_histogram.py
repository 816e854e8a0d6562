"""The histogram is a function of the data alone, and merging is exact."""

import math
import struct
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.histogram import (
    BINS,
    MIN_EXPONENT,
    Histogram,
    coarsen,
    empty,
    exponent_for,
    from_array,
    merge,
)
from tests.strategies import Floats, activations, arrays, histograms, magnitudes, numbers, scaled


def stored(h: Histogram) -> bytes:
    """Every bit that a file would hold, the sign of zero included."""
    samples = [-1 if first is None else first for first in (h.first_nan, h.first_inf)]
    scalars = (h.exponent, h.zeros, h.nans, h.infs, *samples)
    return h.counts.tobytes() + struct.pack("<2d6q", h.minimum, h.maximum, *scalars)


def plain(rows: list[list[float]]) -> tuple[dict[int, int], int]:
    """Return non-zero counts by bin, and the exponent, in exact rational arithmetic."""
    finite = [Fraction(abs(x)) for row in rows for x in row if math.isfinite(x)]
    exponent = MIN_EXPONENT
    while any(x >= BINS * Fraction(2) ** exponent for x in finite):
        exponent += 1
    counts: dict[int, int] = {}
    for x in finite:
        index = math.floor(x / Fraction(2) ** exponent)
        counts[index] = counts.get(index, 0) + 1
    return counts, exponent


@given(arrays(4, 4))
def test_equals_the_definition_in_exact_arithmetic(x: Floats) -> None:
    h = from_array("t", x)
    counts, exponent = plain(x.tolist())
    assert {i: int(h.counts[i]) for i in np.flatnonzero(h.counts)} == counts
    assert h.exponent == exponent
    values = x.ravel().tolist()
    finite = [v for v in values if math.isfinite(v)]
    assert h.minimum == min(finite, default=math.inf)
    assert h.maximum == max(finite, default=-math.inf)
    assert h.zeros == values.count(0.0)
    assert h.nans == sum(map(math.isnan, values))
    assert h.infs == sum(map(math.isinf, values))
    assert h.total == len(finite)
    assert h.amax == max(map(abs, finite), default=0.0)


@given(arrays())
def test_names_the_first_sample_that_is_not_finite(x: Floats) -> None:
    h = from_array("t", x, first_sample=10)
    nan = [10 + i for i, row in enumerate(x.tolist()) if any(map(math.isnan, row))]
    inf = [10 + i for i, row in enumerate(x.tolist()) if any(map(math.isinf, row))]
    assert h.first_nan == (nan[0] if nan else None)
    assert h.first_inf == (inf[0] if inf else None)


@given(arrays(), st.data())
def test_any_cut_in_any_order_gives_the_same_bytes(x: Floats, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=5)))
    borders = [0, *cuts, len(x)]
    pieces = list(pairwise(borders))
    parts = [from_array("t", x[a:b], first_sample=a) for a, b in pieces]
    shuffled = data.draw(st.permutations(parts))
    assert stored(merge(shuffled)) == stored(from_array("t", x))


@given(arrays(), st.integers(1, 9))
def test_any_batch_size_gives_the_same_bytes(x: Floats, batch: int) -> None:
    running = empty("t")
    for start in range(0, len(x), batch):
        running = merge([running, from_array("t", x[start : start + batch], start)])
    assert stored(running) == stored(from_array("t", x))


@given(activations(), st.permutations(range(8)))
def test_networks_activations_in_any_order_too(x: Floats, order: list[int]) -> None:
    parts = [from_array("t", x[i::8]) for i in order]
    assert stored(merge(parts)) == stored(from_array("t", x))


@given(histograms(), histograms(), histograms())
def test_merge_is_associative_and_commutative(a: Histogram, b: Histogram, c: Histogram) -> None:
    once = merge([a, b, c])
    assert stored(merge([merge([a, b]), c])) == stored(once)
    assert stored(merge([a, merge([b, c])])) == stored(once)
    assert stored(merge([c, b, a])) == stored(once)


@given(histograms())
def test_the_empty_histogram_is_neutral(h: Histogram) -> None:
    assert merge([empty("t"), h]) == h == merge([h, empty("t")])


@given(activations(), st.integers(0, 14))
def test_coarsening_equals_direct_binning(x: Floats, doublings: int) -> None:
    h = from_array("t", x)
    width = 2.0 ** (h.exponent + doublings)
    direct = np.histogram(np.abs(x.astype(np.float64)), bins=np.arange(BINS + 1) * width)[0]
    assert np.array_equal(coarsen(h.counts, doublings), direct)


@given(histograms(), st.integers(0, 13), st.integers(0, 13))
def test_coarsening_adds_up(h: Histogram, first: int, second: int) -> None:
    twice = coarsen(coarsen(h.counts, first), second)
    assert np.array_equal(twice, coarsen(h.counts, first + second))
    assert twice.sum() == h.total
    assert twice.dtype == np.int64


@given(st.one_of(magnitudes(), st.floats(5e-324, 1.7e308)))
def test_the_exponent_is_the_least_that_holds_the_magnitude(amax: float) -> None:
    exponent = exponent_for(amax)
    assert Fraction(amax) < BINS * Fraction(2) ** exponent
    if exponent > MIN_EXPONENT:
        assert Fraction(amax) >= BINS // 2 * Fraction(2) ** exponent


@given(activations(), st.integers(-30, 30))
def test_a_power_of_two_moves_the_exponent_alone(x: Floats, power: int) -> None:
    wide = x.astype(np.float64)
    assert from_array("t", np.ldexp(wide, power)) == scaled(from_array("t", wide), power)


@given(histograms())
def test_bins_enclose_what_they_count(h: Histogram) -> None:
    last = h.used - 1
    assert h.edges[last] <= h.amax < h.edges[last + 1]
    assert np.array_equal(h.centers, (h.edges[:-1] + h.edges[1:]) / 2)
    assert h.width == h.edges[1]


@given(numbers())
def test_a_scalar_is_one_sample(x: float) -> None:
    h = from_array("t", np.array(x, np.float32), first_sample=3)
    assert h.total + h.nans + h.infs == 1
    assert (h.first_nan == 3) == math.isnan(x)
    assert (h.first_inf == 3) == math.isinf(x)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, np.uint8, np.bool_])
def test_other_types_count_by_value(dtype: type[np.generic]) -> None:
    x = np.array([0, 1, 1, 0, 1])
    assert from_array("t", x.astype(dtype)) == from_array("t", x.astype(np.float32))


def test_nothing_seen_is_the_empty_histogram() -> None:
    nothing = from_array("t", np.zeros((0, 3), np.float32))
    assert stored(nothing) == stored(empty("t"))
    assert (nothing.total, nothing.amax, nothing.used) == (0, 0.0, 0)


def test_the_sign_of_zero_does_not_depend_on_the_order() -> None:
    plus, minus = (from_array("t", np.array([z])) for z in (0.0, -0.0))
    assert stored(plus) == stored(minus)
    assert stored(merge([plus, minus])) == stored(merge([minus, plus]))


def test_the_largest_float64_has_bins_and_centres() -> None:
    h = from_array("t", np.array([np.finfo(np.float64).max]))
    assert h.used == BINS
    assert np.isfinite(h.centers).all()
    assert np.isinf(h.edges[-1])
    assert np.isfinite(h.edges[:-1]).all()


def test_magnitudes_below_every_width_share_the_first_bin() -> None:
    h = from_array("t", np.array([5e-324, -1e-310]))
    assert (h.used, h.exponent, h.zeros) == (1, MIN_EXPONENT, 0)
    assert h.amax == 1e-310


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_merging_needs_one_tensor(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one tensor"):
        merge([empty(name) for name in names])


@given(histograms())
def test_equality_sees_every_field(h: Histogram) -> None:
    more = h.counts.copy()
    more[0] += 1
    others = [
        replace(h, counts=more),
        replace(h, tensor="other"),
        replace(h, exponent=h.exponent + 1),
        replace(h, minimum=-7.0e38),
        replace(h, maximum=7.0e38),
        replace(h, zeros=h.zeros + 1),
        replace(h, nans=1),
        replace(h, infs=1),
        replace(h, first_nan=0),
        replace(h, first_inf=0),
    ]
    assert h == replace(h, counts=h.counts.copy())
    assert all(h != other for other in others)
    assert h != h.counts.tobytes()


def test_a_histogram_is_no_dictionary_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(empty("t"))


def test_the_batches_maxima_are_no_part_of_equality_and_are_dropped_by_merging() -> None:
    h = from_array("t", np.ones(4))
    kept = replace(h, batch_amax=np.ones(2))
    assert kept == h
    assert merge([kept, kept]).batch_amax is None
