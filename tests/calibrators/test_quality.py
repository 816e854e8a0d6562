"""Predicted error and clipping equal plain integrals, and what really quantizing arrays gives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.calibrators.quality import clipped_fraction, relative_error, sqnr_db, sqnrs_db
from quantlab.histogram import Histogram, empty, from_array
from quantlab.qparams import fake_quantize, symmetric
from tests.strategies import Floats, activations, histograms, scaled

SHARES = st.floats(0.01, 1.2)


def oracle(h: Histogram, step: float, levels: int) -> float:
    """Integrate (x - q(x))**2 over every bin, cut where q jumps; divide by that of x**2."""
    error = power = 0.0
    step = math.ldexp(step, -h.exponent)
    for j in np.flatnonzero(h.counts).tolist():
        density = int(h.counts[j]) - (h.zeros if j == 0 else 0)
        power += density * ((j + 1) ** 3 - j**3) / 3
        first = min(math.floor(j / step + 0.5), levels)
        last = min(math.floor((j + 1) / step + 0.5), levels)
        for q in range(first, last + 1):
            low = j if q == first else (q - 0.5) * step
            high = j + 1 if q == last else (q + 0.5) * step
            error += density * ((high - q * step) ** 3 - (low - q * step) ** 3) / 3
    return error / power


@given(histograms(), SHARES, st.sampled_from([1, 7, 127, 255]))
def test_the_error_equals_the_integral(h: Histogram, share: float, levels: int) -> None:
    step = share * h.amax / levels
    found = relative_error(h, np.array([step]), levels)[0]
    # The prediction is 1 minus a sum near 1: its last digits are lost, 1e-12 is -120 dB.
    assert found == pytest.approx(oracle(h, step, levels), rel=1e-9, abs=1e-12)


@given(histograms(), st.lists(SHARES, min_size=2, max_size=5))
def test_steps_are_independent_of_each_other(h: Histogram, shares: list[float]) -> None:
    steps = np.array(shares) * h.amax / 127
    alone = [relative_error(h, steps[i : i + 1])[0] for i in range(len(steps))]
    assert relative_error(h, steps).tolist() == alone


@given(histograms(), st.sampled_from([-20, -3, 5]))
def test_errors_are_relative(h: Histogram, power: int) -> None:
    step = np.array([h.amax / 200])
    expected = relative_error(h, step)
    assert relative_error(scaled(h, power), np.ldexp(step, power)).tolist() == expected.tolist()


def test_a_grid_too_coarse_to_hold_anything_loses_everything() -> None:
    h = from_array("t", np.array([1.0, 0.3]))
    assert relative_error(h, np.array([2.5])).tolist() == [1.0]


def measured_db(x: Floats, threshold: float) -> float:
    wide = x.astype(np.float64)
    error = fake_quantize(x, symmetric(threshold)) - wide
    return float(10 * np.log10(np.square(wide).sum() / np.square(error).sum()))


MADE = {
    "relu": lambda rng: np.maximum(rng.normal(size=50_000), 0),
    "laplace": lambda rng: np.abs(rng.laplace(size=50_000)),
    "uniform": lambda rng: rng.uniform(0, 3.3, 50_000),
    "softmax": lambda rng: np.exp(rng.normal(size=50_000) - 3),
}


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", MADE)
def test_sqnr_is_what_quantizing_gives(name: str, share: float) -> None:
    x = MADE[name](np.random.default_rng(3)).astype(np.float32)
    h = from_array("t", x)
    # Rounding errors of 50,000 elements scatter by a per cent: 0.1 dB is 2 %.
    assert sqnr_db(h, share * h.amax) == pytest.approx(measured_db(x, share * h.amax), abs=0.1)


@given(
    st.sampled_from(sorted(MADE)),
    st.integers(0, 2**32 - 1),
    st.floats(0.03, 1.0),
    st.floats(1e-6, 1e6),
)
def test_the_prediction_is_within_a_twentieth_of_a_decibel_of_quantizing(
    name: str, seed: int, share: float, scale: float
) -> None:
    """The figure that docs/methods.md states for any threshold, seed and unit."""
    x = (scale * MADE[name](np.random.default_rng(seed))[:20_000]).astype(np.float32)
    h = from_array("t", x)
    assert sqnr_db(h, share * h.amax) == pytest.approx(measured_db(x, share * h.amax), abs=0.05)


@given(histograms(), st.lists(SHARES, max_size=4))
def test_several_thresholds_are_predicted_as_each_alone(h: Histogram, shares: list[float]) -> None:
    thresholds = [share * h.amax for share in shares]
    assert sqnrs_db(h, thresholds) == [sqnr_db(h, threshold) for threshold in thresholds]


def test_sqnr_of_a_signed_tensor_leaves_out_the_last_negative_step() -> None:
    x = np.random.default_rng(3).normal(size=50_000).astype(np.float32)
    h = from_array("t", x)
    for share in (0.3, 0.7, 1.0):
        gain = measured_db(x, share * h.amax) - (sqnr_db(h, share * h.amax) or 0)
        assert -0.1 < gain < 0.3


@given(histograms(), SHARES)
def test_sqnr_is_a_number_of_decibels(h: Histogram, share: float) -> None:
    value = sqnr_db(h, share * h.amax)
    assert value is not None
    assert 0 <= value < 100


def test_sqnr_of_a_constant_is_bounded_by_the_bins() -> None:
    value = sqnr_db(from_array("t", np.full(9, 1.0)), 1.0)
    assert value is not None
    assert 60 < value < 80


@pytest.mark.parametrize("h", [empty("t"), from_array("t", np.zeros(5))])
def test_nothing_but_zeros_has_no_ratio_and_no_clipping(h: Histogram) -> None:
    assert sqnr_db(h, 0.0) is None
    assert sqnrs_db(h, [0.0, 1.0]) == [None, None]
    assert clipped_fraction(h, 0.0) == 0.0


def test_below_every_scale_all_becomes_zero() -> None:
    for value in (1e-45, 1e-300):
        assert sqnr_db(from_array("t", np.array([value])), value) == 0.0


@given(activations(), st.integers(0, 4096))
def test_at_an_edge_the_clipped_share_is_exact(x: Floats, edge: int) -> None:
    h = from_array("t", x)
    threshold = edge * h.width
    # At an edge the elements equal to it lie in the bin above; zeros are never clipped.
    beyond = np.count_nonzero((np.abs(x) >= threshold) & (x != 0) & (threshold < h.amax))
    assert clipped_fraction(h, threshold) == pytest.approx(beyond / x.size, rel=1e-12, abs=0)


@given(activations(), SHARES)
def test_elsewhere_it_is_exact_to_a_bin(x: Floats, share: float) -> None:
    h = from_array("t", x)
    threshold = share * h.amax
    beyond = np.count_nonzero(np.abs(x).astype(np.float64) > threshold)
    own = h.counts[min(int(threshold / h.width), h.used - 1)]
    assert abs(clipped_fraction(h, threshold) * x.size - beyond) <= own + 1e-9


@given(histograms(), SHARES, SHARES)
def test_a_larger_threshold_never_clips_more(h: Histogram, a: float, b: float) -> None:
    low, high = sorted([a, b])
    assert clipped_fraction(h, low * h.amax) >= clipped_fraction(h, high * h.amax)
    assert 0 <= clipped_fraction(h, low * h.amax) <= 1


@given(histograms())
def test_from_the_largest_magnitude_on_nothing_is_clipped(h: Histogram) -> None:
    assert clipped_fraction(h, h.amax) == clipped_fraction(h, 2 * h.amax) == 0.0
