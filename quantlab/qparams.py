"""Scales and the only rounding and clipping of the project.

An INT8 value q stands for ``q * scale``.  TensorRT's grid is symmetric: ``scale = amax / 127``,
``q = clip(round_half_even(x / scale), -128, 127)`` (IQuantizeLayer in NvInfer.h).  The unsigned
grid of ONNX Runtime's CPU kernels has ``scale = amax / 255`` and zero point 0 where a tensor is
never negative, and zero point 128 with the symmetric scale elsewhere.

Arithmetic is float32, as in ONNX's QuantizeLinear and DequantizeLinear, and equal to theirs bit
for bit.  They leave NaN open; here it becomes the zero point, as CUDA converts NaN to 0.

Units: amax and scale in the tensor's own units, q in steps.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

LEVELS = 127
"""Steps on each side of zero of symmetric INT8."""

UNSIGNED_LEVELS = 255
"""Steps of UINT8 with zero point 0."""

SAFE_SCALE = 1.0
"""Scale of a tensor or channel that is always zero: any positive scale maps 0 to 0 exactly, and
TensorRT refuses a scale of 0."""

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Smallest scale that is given out: below it float32 is subnormal and ``x / scale`` overflows."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class QParams:
    """How one tensor is quantized.

    Attributes:
        scale: () for per-tensor, (channels,) for per-channel; float32, > 0.
        zero_point: same shape; int8 zeros, or uint8.
        axis: channel axis of a per-channel tensor, else None.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int8 | np.uint8]
    axis: int | None = None


def scale_of(amax: float, levels: int = LEVELS) -> float:
    """Return ``amax / levels`` as a float32 value, ``SAFE_SCALE`` for amax 0.

    At least ``SMALLEST_SCALE``, and at most what lets every integer dequantize to a finite
    float32: at the upper end of float32 that clips the last step.

    Args:
        amax: threshold, finite and >= 0, in the tensor's units.
        levels: 127 for symmetric INT8, 255 for UINT8 with zero point 0.

    Raises:
        ValueError: amax is negative, not finite, or needs a scale beyond float32.
    """
    if not (np.isfinite(amax) and amax >= 0):
        raise ValueError(f"amax must be finite and not negative, got {amax!r}")
    if amax == 0:
        return SAFE_SCALE
    if amax / levels > FLOAT32_MAX:
        raise ValueError(f"amax {amax!r} needs a scale beyond float32")
    scale = float(np.float32(amax / levels))
    return min(max(scale, SMALLEST_SCALE), FLOAT32_MAX / (levels + 1))


def symmetric(amax: float) -> QParams:
    """Return the per-tensor INT8 parameters of a threshold: TensorRT's grid."""
    return QParams(np.asarray(scale_of(amax), np.float32), np.asarray(0, np.int8))


def unsigned(amax: float, minimum: float) -> QParams:
    """Return per-tensor UINT8 parameters: zero point 0 if ``minimum`` >= 0, else 128."""
    if minimum >= 0:
        scale = scale_of(amax, UNSIGNED_LEVELS)
        return QParams(np.asarray(scale, np.float32), np.asarray(0, np.uint8))
    return QParams(np.asarray(scale_of(amax), np.float32), np.asarray(128, np.uint8))


def per_channel(weights: NDArray[np.floating], axis: int) -> QParams:
    """Return symmetric INT8 parameters of constant weights: a scale an index of ``axis``.

    Args:
        weights: at least one axis; finite.
        axis: may count from the end; stored counting from the front.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    axis %= weights.ndim
    others = tuple(i for i in range(weights.ndim) if i != axis)
    amax = np.abs(weights.astype(np.float64)).max(axis=others, initial=0.0)
    scale = np.array([scale_of(float(value)) for value in amax], np.float32)
    return QParams(scale, np.zeros(scale.shape, np.int8), axis)


def in_float16(q: QParams) -> QParams:
    """Return ``q`` with each scale raised to the next number that FP16 has.

    DequantizeLinear gives the type of its scale, so integers that become FP16 need such scales.
    Rounding up keeps every value within the grid; it costs at most 1 / 1024 of the resolution, and
    more only for scales below 6.1e-5, where FP16's own steps are coarser.

    Raises:
        ValueError: a scale is beyond FP16.
    """
    if (q.scale > FLOAT16_MAX).any():
        raise ValueError(f"scale {float(q.scale.max()):.4g} is beyond FP16, {FLOAT16_MAX:.0f}")
    nearest = q.scale.astype(np.float16)
    with np.errstate(over="ignore"):  # the next of 65504 is infinite, and not taken
        above = np.nextafter(nearest, np.float16(np.inf))
    scale = np.where(nearest.astype(np.float32) < q.scale, above, nearest)
    return QParams(scale.astype(np.float32), q.zero_point, q.axis)


def quantize(x: NDArray[np.floating], q: QParams) -> NDArray[np.int8 | np.uint8]:
    """Return ``clip(round_half_even(x / scale) + zero_point)`` in the zero point's dtype.

    Infinities, and quotients beyond float32, become the nearest limit.
    """
    limits = np.iinfo(q.zero_point.dtype)
    with np.errstate(over="ignore"):
        steps = np.rint(x.astype(np.float32) / _along(q.scale, q.axis, x.ndim))
    steps = np.where(np.isnan(steps), np.float32(0), steps)
    steps += _along(q.zero_point, q.axis, x.ndim)
    return np.clip(steps, limits.min, limits.max).astype(q.zero_point.dtype)


def quantize_weights(x: NDArray[np.floating], q: QParams) -> NDArray[np.int8]:
    """Return ``quantize(x, q)`` of symmetric INT8 without the value -128."""
    return np.maximum(quantize(x, q), -LEVELS).astype(np.int8)


def neighbours(
    x: NDArray[np.floating], q: QParams
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return x in steps, and the integers below and above it, within -127..127.

    The two are one for what is an integer, and for what is beyond the limits.

    Args:
        x: finite.
        q: symmetric INT8.
    """
    steps = x.astype(np.float64) / _along(q.scale, q.axis, x.ndim)
    limited = (np.clip(ends, -LEVELS, LEVELS) for ends in (np.floor(steps), np.ceil(steps)))
    below, above = limited
    return steps, below, above


def quantize_bias(bias: NDArray[np.floating], scale: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return ``round_half_even(bias / scale)`` as INT32; infinities become the nearest limit."""
    limits = np.iinfo(np.int32)
    with np.errstate(over="ignore"):
        steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    steps = np.where(np.isnan(steps), 0.0, steps)
    return np.clip(steps, limits.min, limits.max).astype(np.int32)


def dequantize(quantized: NDArray[np.int8 | np.uint8], q: QParams) -> NDArray[np.float32]:
    """Return ``(quantized - zero_point) * scale`` in float32, infinite where that overflows."""
    steps = quantized.astype(np.int32) - _along(q.zero_point, q.axis, quantized.ndim)
    with np.errstate(over="ignore"):
        return steps.astype(np.float32) * _along(q.scale, q.axis, quantized.ndim)


def fake_quantize(x: NDArray[np.floating], q: QParams) -> NDArray[np.float32]:
    """Return ``dequantize(quantize(x))``: x as the integer kernels see it."""
    return dequantize(quantize(x, q), q)


def _along(values: NDArray[T], axis: int | None, rank: int) -> NDArray[T]:
    """Return ``values`` shaped to broadcast along ``axis`` of an array of ``rank`` axes."""
    if axis is None:
        return values
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
