"""Scales and rounding: bounds, round trips, and the same bits as ONNX Runtime's operators."""

import math
from collections.abc import Callable

import hypothesis.extra.numpy as hnp
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.parser import parse_model

from quantlab.qparams import (
    FLOAT16_MAX,
    FLOAT32_MAX,
    LEVELS,
    SAFE_SCALE,
    SMALLEST_SCALE,
    UNSIGNED_LEVELS,
    QParams,
    dequantize,
    fake_quantize,
    in_float16,
    per_channel,
    quantize,
    scale_of,
    symmetric,
    unsigned,
)
from tests.strategies import Floats, arrays, magnitudes, numbers

Integers = NDArray[np.int8 | np.uint8]
Run = Callable[[Floats, QParams], tuple[Integers, Floats]]


def qdq_model(dtype: str, axis: int) -> Run:
    """Return ONNX Runtime's QuantizeLinear and DequantizeLinear as a function."""
    shape = "" if axis < 0 else "c"
    attribute = "" if axis < 0 else f"<axis = {axis}>"
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[n, c] x, float[{shape}] s, {dtype}[{shape}] z) => ({dtype}[n, c] q, float[n, c] y) {{
        q = QuantizeLinear {attribute} (x, s, z)
        y = DequantizeLinear {attribute} (q, s, z)
    }}"""
    model = parse_model(text).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    def run(x: Floats, q: QParams) -> tuple[Integers, Floats]:
        integers, floats = session.run(None, {"x": x, "s": q.scale, "z": q.zero_point})
        return integers, floats

    return run


RUNTIME = {(dtype, axis): qdq_model(dtype, axis) for dtype in ("int8", "uint8") for axis in (-1, 1)}


def without_nan(x: Floats) -> Floats:
    """ONNX leaves NaN open."""
    return np.where(np.isnan(x), np.float32(0), x)


def parameters() -> st.SearchStrategy[QParams]:
    amax = st.one_of(st.just(0.0), magnitudes())
    return st.one_of(
        amax.map(symmetric),
        amax.map(lambda a: unsigned(a, 0.0)),
        amax.map(lambda a: unsigned(a, -1.0)),
    )


@given(arrays().map(without_nan), parameters())
def test_the_same_bits_as_onnx_runtime(x: Floats, q: QParams) -> None:
    integers, floats = RUNTIME[q.zero_point.dtype.name, -1](x, q)
    assert np.array_equal(quantize(x, q), integers)
    assert np.array_equal(dequantize(quantize(x, q), q), floats)
    assert quantize(x, q).dtype == q.zero_point.dtype
    assert fake_quantize(x, q).dtype == np.float32


@given(st.floats(2**-10, 2**10, width=32))
def test_the_same_bits_half_way_between_steps(amax: float) -> None:
    """Where a quotient in float32 is half-way, and in float64 it is not."""
    q = symmetric(amax)
    ties = (np.arange(-128, 128, dtype=np.float32) + np.float32(0.5)) * q.scale
    x = np.stack([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, 2 * ties)])
    assert np.array_equal(quantize(x, q), RUNTIME["int8", -1](x, q)[0])


@given(arrays().map(without_nan), st.data())
def test_the_same_bits_by_channel(x: Floats, data: st.DataObject) -> None:
    scales = data.draw(st.lists(magnitudes(), min_size=x.shape[1], max_size=x.shape[1]))
    dtype = data.draw(st.sampled_from([np.int8, np.uint8]))
    zero_point = np.full(len(scales), 128 if dtype == np.uint8 else 0, dtype)
    normal = np.maximum(np.array(scales, np.float32), np.float32(SMALLEST_SCALE))
    q = QParams(normal, zero_point, axis=1)
    integers, floats = RUNTIME[np.dtype(dtype).name, 1](x, q)
    assert np.array_equal(quantize(x, q), integers)
    assert np.array_equal(dequantize(quantize(x, q), q), floats)


@given(numbers().filter(math.isfinite), magnitudes())
def test_equals_the_formula_one_number_at_a_time(x: float, amax: float) -> None:
    q = symmetric(amax)
    with np.errstate(over="ignore"):
        quotient = float(np.float32(x) / q.scale)
    expected = round(min(max(quotient, -128.0), 127.0))
    assert int(quantize(np.array([x], np.float32), q)[0]) == expected


@given(arrays(), magnitudes())
def test_inside_the_range_the_error_is_half_a_step(x: Floats, amax: float) -> None:
    q = symmetric(amax)
    scale = float(q.scale)
    inside = x[np.abs(x) <= amax].astype(np.float64)
    error = np.abs(fake_quantize(inside, q) - inside)
    # 2**-23: a quotient of up to 127 is rounded to float32 before it is rounded to a step.
    # Only at the upper end of float32 is the last step clipped.
    worst = 0.5 + LEVELS * 2**-23 if amax < 2.0**127 else 1.01
    assert (error <= scale * worst).all()


@given(arrays(), magnitudes())
def test_outside_the_range_the_limits_stand(x: Floats, amax: float) -> None:
    q = symmetric(amax)
    scale = float(q.scale)
    wide = x.astype(np.float64)
    assert (quantize(wide[wide > 127.51 * scale], q) == 127).all()
    assert (quantize(wide[wide < -128.51 * scale], q) == -128).all()


@given(parameters())
def test_dequantizing_and_quantizing_gives_every_integer_back(q: QParams) -> None:
    limits = np.iinfo(q.zero_point.dtype)
    every = np.arange(limits.min, limits.max + 1).astype(q.zero_point.dtype)
    assert np.array_equal(quantize(dequantize(every, q), q), every)


@given(arrays().map(without_nan), parameters())
def test_quantizing_is_monotone_and_maps_zero_to_zero(x: Floats, q: QParams) -> None:
    assert (np.diff(quantize(np.sort(x, axis=None), q).astype(int)) >= 0).all()
    assert fake_quantize(np.zeros(3, np.float32), q).tolist() == [0.0, 0.0, 0.0]


@given(arrays().map(without_nan), magnitudes())
def test_the_symmetric_grid_is_symmetric(x: Floats, amax: float) -> None:
    plus, minus = (quantize(v, symmetric(amax)).astype(int) for v in (x, -x))
    assert np.array_equal(np.maximum(plus, -127), -np.maximum(minus, -127))


@given(parameters())
def test_nan_becomes_the_zero_point_and_infinities_the_limits(q: QParams) -> None:
    limits = np.iinfo(q.zero_point.dtype)
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    assert quantize(x, q).tolist() == [q.zero_point, limits.max, limits.min]


def test_float64_beyond_float32_is_clipped_without_a_warning() -> None:
    assert quantize(np.array([1e300, -1e300]), symmetric(1.0)).tolist() == [127, -128]


def test_a_value_beyond_float32_dequantizes_to_infinity() -> None:
    q = QParams(np.array(FLOAT32_MAX / 127, np.float32), np.zeros((), np.int8))
    assert dequantize(np.array([-128, 1], np.int8), q).tolist() == [-math.inf, float(q.scale)]


@given(magnitudes(), st.sampled_from([LEVELS, UNSIGNED_LEVELS]))
def test_a_scale_is_a_normal_float32_and_reaches_the_threshold(amax: float, levels: int) -> None:
    scale = scale_of(amax, levels)
    assert float(np.float32(scale)) == scale
    assert scale >= SMALLEST_SCALE
    if scale == SMALLEST_SCALE:
        assert amax / levels <= SMALLEST_SCALE * (1 + 2**-24)
    elif scale == FLOAT32_MAX / (levels + 1):
        assert amax >= scale * levels * (1 - 2**-24)
    else:
        assert scale * levels == pytest.approx(amax, rel=2**-24)
        assert round(amax / scale) == levels
    assert np.isfinite(np.float32(scale) * np.float32(levels + 1))


@given(magnitudes(), magnitudes())
def test_a_larger_threshold_never_has_a_smaller_scale(a: float, b: float) -> None:
    low, high = sorted([a, b])
    assert scale_of(low) <= scale_of(high)


@pytest.mark.parametrize("amax", [-1.0, math.nan, math.inf, -math.inf, 1e300])
def test_a_threshold_without_a_scale_is_refused(amax: float) -> None:
    with pytest.raises(ValueError, match="amax"):
        scale_of(amax)


def test_an_all_zero_tensor_gets_the_safe_scale() -> None:
    assert scale_of(0.0) == scale_of(-0.0) == SAFE_SCALE
    assert float(symmetric(0.0).scale) == SAFE_SCALE


def test_unsigned_uses_the_whole_range_only_where_nothing_is_negative() -> None:
    positive, signed = unsigned(2.55, 0.0), unsigned(2.54, -1e-9)
    assert (float(positive.scale), int(positive.zero_point)) == (float(np.float32(0.01)), 0)
    assert (float(signed.scale), int(signed.zero_point)) == (float(np.float32(0.02)), 128)
    assert positive.zero_point.dtype == signed.zero_point.dtype == np.uint8


WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    elements=numbers().filter(math.isfinite),
)


@given(WEIGHTS, st.data())
def test_a_channel_is_quantized_as_if_alone(weights: Floats, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-weights.ndim, weights.ndim - 1))
    q = per_channel(weights, axis)
    assert q.axis == axis % weights.ndim
    assert q.zero_point.dtype == np.int8
    channels = np.moveaxis(weights, axis, 0)
    quantized = np.moveaxis(quantize(weights, q), axis, 0)
    restored = np.moveaxis(fake_quantize(weights, q), axis, 0)
    assert len(q.scale) == len(channels)
    for i, channel in enumerate(channels):
        alone = symmetric(float(np.abs(channel).max()))
        assert q.scale[i] == alone.scale
        assert np.array_equal(quantized[i], quantize(channel, alone))
        assert np.array_equal(restored[i], fake_quantize(channel, alone))
        if np.abs(channel).max() < 2.0**127:
            assert np.abs(quantized[i].astype(int)).max() <= 127


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        per_channel(np.array([[1.0, bad]]), 0)


def test_a_channel_without_elements_gets_the_safe_scale() -> None:
    assert per_channel(np.zeros((2, 0), np.float32), 0).scale.tolist() == [SAFE_SCALE] * 2


@given(st.lists(st.floats(SMALLEST_SCALE, FLOAT16_MAX, width=32), min_size=1, max_size=8))
def test_scales_for_float16_are_the_next_that_it_has(scales: list[float]) -> None:
    given_ = QParams(np.array(scales, np.float32), np.zeros(len(scales), np.int8), 0)
    found = in_float16(given_)
    half = found.scale.astype(np.float16)
    np.testing.assert_array_equal(half.astype(np.float32), found.scale)
    assert (found.scale >= given_.scale).all()
    below = np.nextafter(half, np.float16(0)).astype(np.float32)
    assert (below < given_.scale).all()
    assert (found.zero_point, found.axis) == (given_.zero_point, given_.axis)


def test_a_scale_beyond_float16_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond FP16, 65504"):
        in_float16(symmetric(127 * 70000.0))
