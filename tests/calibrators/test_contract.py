"""What every calibrator in the registry does, on ordinary tensors and at the edges."""

import importlib
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.calibrators import CALIBRATORS, PER_BATCH, Calibrator
from quantlab.errors import CalibrationError, ConfigError
from quantlab.histogram import BINS, Histogram, empty, from_array, merge
from quantlab.qparams import FLOAT32_MAX, SMALLEST_SCALE, scale_of
from quantlab.registry import make
from tests import strategies
from tests.strategies import Floats, activations


def batched(h: Histogram, smaller: tuple[float, ...] = ()) -> Histogram:
    """Return ``h`` as if cut into batches: one without a finite element, one with the largest
    magnitude, and some whose largest is a share of it."""
    maxima = [-math.inf, h.amax, *(share * h.amax for share in smaller)]
    return replace(h, batch_amax=np.array(maxima))


def histograms() -> st.SearchStrategy[Histogram]:
    shares = st.lists(st.sampled_from([0.0, 0.25, 0.7, 1.0]), max_size=5).map(tuple)
    return st.builds(batched, strategies.histograms(), shares)


def scaled(h: Histogram, power: int) -> Histogram:
    assert h.batch_amax is not None
    return replace(strategies.scaled(h, power), batch_amax=np.ldexp(h.batch_amax, power))


def counted(x: Floats) -> Histogram:
    return batched(from_array("t", x))


@pytest.fixture(params=CALIBRATORS, scope="session")
def calibrator(request: pytest.FixtureRequest) -> Calibrator:
    return make("calibrator", CALIBRATORS, request.param, {})


def of(*values: float) -> Histogram:
    return batched(from_array("relu1", np.array(values)))


@given(h=histograms())
def test_is_positive_and_at_most_half_a_bin_beyond_the_last(
    calibrator: Calibrator, h: Histogram
) -> None:
    assert 0 < calibrator.threshold(h) <= (h.used + 0.5) * h.width


@given(h=histograms())
def test_is_deterministic_and_leaves_the_histogram_alone(
    calibrator: Calibrator, h: Histogram
) -> None:
    before = replace(h, counts=h.counts.copy())
    assert calibrator.threshold(h) == calibrator.threshold(h)
    assert h == before


@given(h=histograms(), power=st.integers(-60, 0))
def test_scaling_the_tensor_scales_the_threshold(
    calibrator: Calibrator, h: Histogram, power: int
) -> None:
    expected = math.ldexp(calibrator.threshold(h), power)
    assert calibrator.threshold(scaled(h, power)) == expected


@given(x=activations(300))
def test_the_sign_of_the_elements_does_not_matter(calibrator: Calibrator, x: Floats) -> None:
    assert calibrator.threshold(counted(x)) == calibrator.threshold(counted(-x))


@given(h=histograms())
def test_nan_and_infinities_change_nothing(calibrator: Calibrator, h: Histogram) -> None:
    bad = replace(of(math.nan, math.inf, -math.inf, math.nan), tensor=h.tensor)
    more = replace(merge([h, bad]), batch_amax=h.batch_amax)  # the bad batch's maximum is -inf
    assert calibrator.threshold(more) == calibrator.threshold(h)


@pytest.mark.parametrize("h", [empty("relu1"), of(), of(math.nan, math.inf)])
def test_nothing_finite_names_the_tensor_and_the_remedy(
    calibrator: Calibrator, h: Histogram
) -> None:
    with pytest.raises(CalibrationError, match=r"'relu1'.*more samples"):
        calibrator.threshold(h)


def test_beyond_float32_names_the_tensor_and_the_value(calibrator: Calibrator) -> None:
    with pytest.raises(CalibrationError, match=r"'relu1'.*float32, got 1e\+300"):
        calibrator.threshold(of(1.0, -1e300))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_all_zero_gives_zero(calibrator: Calibrator, zero: float) -> None:
    assert calibrator.threshold(of(zero, zero, 0.0)) == 0.0


@pytest.mark.parametrize("copies", [1, 1000])
@pytest.mark.parametrize("x", [1.0, -3.7, 1.9999, 255.0, 1e-30, 3e38, FLOAT32_MAX, 1e-45, 2**-126])
def test_a_constant_keeps_its_range(calibrator: Calibrator, x: float, copies: int) -> None:
    h = of(*[x] * copies)
    assert h.amax <= calibrator.threshold(h) <= h.amax + 1.5 * h.width


def test_elements_that_share_a_bin_keep_their_range(calibrator: Calibrator) -> None:
    h = of(1.0, 1.0001, 1.0002)
    assert np.count_nonzero(h.counts) == 1
    assert h.amax <= calibrator.threshold(h) <= h.amax + 1.5 * h.width


def test_the_smallest_floats_keep_their_range(calibrator: Calibrator) -> None:
    h = of(5e-324, 1e-310, 0.0)  # all below the width of the smallest bin
    assert h.amax <= calibrator.threshold(h) <= 1.5 * h.width


@pytest.mark.parametrize("x", [3e38, FLOAT32_MAX])
def test_huge_thresholds_have_a_scale(calibrator: Calibrator, x: float) -> None:
    scale = scale_of(calibrator.threshold(of(x, 1.0)))
    assert np.isfinite(np.float32(scale * 127))


def test_subnormal_thresholds_have_the_smallest_scale(calibrator: Calibrator) -> None:
    assert scale_of(calibrator.threshold(of(1e-45, 3e-45))) == SMALLEST_SCALE


def test_every_bin_filled_alike_clips_next_to_nothing(calibrator: Calibrator) -> None:
    h = counted((np.arange(BINS) / BINS).astype(np.float32))
    assert calibrator.threshold(h) > 0.98 * h.amax


@given(h=histograms(), shares=st.lists(st.floats(0, 1), max_size=4).map(tuple))
def test_batches_matter_only_to_the_methods_that_say_so(
    h: Histogram, shares: tuple[float, ...]
) -> None:
    without = replace(h, batch_amax=None)
    for name in CALIBRATORS:
        method = make("calibrator", CALIBRATORS, name, {})
        if name in PER_BATCH:
            with pytest.raises(CalibrationError, match=r"'t'.*'quantlab calibrate' again"):
                method.threshold(without)
        else:
            expected = method.threshold(without)
            assert method.threshold(batched(h, shares)) == expected == method.threshold(h)


def test_parameters_are_frozen(calibrator: Calibrator) -> None:
    with pytest.raises((FrozenInstanceError, TypeError)):
        calibrator.extra = 1  # type: ignore[attr-defined]  # that it has none is the point
    for field in fields(calibrator):  # type: ignore[arg-type]  # the registry's rule: a dataclass
        with pytest.raises(FrozenInstanceError):
            setattr(calibrator, field.name, 1)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_an_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="has no parameter 'bins'"):
        make("calibrator", CALIBRATORS, name, {"bins": 2048})


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("percentile", "percentile", 0.0),
        ("percentile", "percentile", 100.1),
        ("percentile", "percentile", math.nan),
        ("entropy", "levels", 15),
        ("entropy", "levels", 2049),
        ("entropy", "zero_bin", "drop"),
        ("mse", "levels", 0),
        ("minmax_mean", "averaging_constant", 0.0),
        ("minmax_mean", "averaging_constant", 1.5),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(name: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*{value}"):
        make("calibrator", CALIBRATORS, name, {key: value})


def test_loading_the_registry_does_not_load_numba() -> None:
    code = "import sys, quantlab.calibrators; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_folder_cannot_be_imported_under_its_bare_name() -> None:
    with pytest.raises(ImportError, match=r"quantlab\.calibrators"):
        importlib.import_module("calibrators")
