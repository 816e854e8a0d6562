"""The INT8 grid with zero point 0 that stands in for another tool's grid.

An integer q with zero point z and scale s stands for ``(q - z) * s``.  A grid that spans [lowest,
highest] in these reals becomes the finest INT8 grid with zero point 0 that covers it:

    scale = max(highest / 127, -lowest / 128)

UINT8 with zero point 0 so gets steps 255 / 127 = 2.008 times as wide, 6 dB more noise; UINT8 with
zero point 128 and INT8 with 0 keep theirs.  An activation with a scale a channel gets the widest.
Stored integers keep their values in channels where ``(q - z)`` fits INT8; others are quantized
again, with ``scale = amax / 127``.

Units: scales in the tensor's own units; a growth is new step over old step.
Limits: the range of an activation is what its old grid spans, not what the data fill.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.qdq_points import Point, Reals
from quantlab.qparams import LEVELS, QParams, quantize, scale_of

INT8 = np.iinfo(np.int8)

Integers = NDArray[np.int8 | np.uint8]


def covering(point: Point) -> QParams:
    """Return the grid of an activation, or of weights that are quantized in the graph."""
    lowest, highest = span(point)
    amax = np.maximum(highest, -lowest * LEVELS / -INT8.min)
    if point.weights and amax.size > 1:
        return _grid(point, amax, point.channel_axis)
    return _grid(point, amax.max(), None)


def span(point: Point) -> tuple[Reals, Reals]:
    """Return what the smallest and the largest integer stand for, () or (channels,)."""
    limits = np.iinfo(np.uint8 if point.dtype == ir.DataType.UINT8 else np.int8)
    scale, zero = _parameters(point)
    ends = (limits.min - zero) * scale, (limits.max - zero) * scale
    return np.minimum(*ends), np.maximum(*ends)


def requantized(point: Point) -> tuple[Integers, QParams]:
    """Return stored integers on their new grid, with a scale an output channel."""
    values, axis = real(point), _old_axis(point)
    if axis is not None and point.output_axis not in (None, axis):
        axis = point.output_axis
        amax = np.abs(values).max(axis=_others(values, axis), initial=0.0)
    else:
        amax = _fitted(point, values, axis)
    params = _grid(point, amax, axis)
    return quantize(values.astype(np.float32), params), params


def real(point: Point) -> Reals:
    """Return what stored integers stand for, rounded to float32 as DequantizeLinear does."""
    integers, axis = _stored(point), _old_axis(point)
    scale, zero = (_along(part, axis, integers.ndim) for part in _parameters(point))
    values = (integers - zero).astype(np.float32) * scale.astype(np.float32)
    return values.astype(np.float64)


def growth(point: Point, params: QParams) -> float:
    """Return new step over old step, the largest of all channels; 1 in place of a step of 0."""
    old, new = np.abs(_parameters(point)[0]), params.scale.astype(np.float64)
    if params.axis not in (None, _old_axis(point)):
        old, new = old.max(), new.max()
    ratio = np.divide(new, old, out=np.ones_like(new + old), where=old > 0)
    return float(ratio.max())


def _fitted(point: Point, values: Reals, axis: int | None) -> Reals:
    """Return amax () or (channels,) that keeps the integers of channels that fit INT8."""
    scale, zero = _parameters(point)
    sign = np.sign(_along(scale, axis, values.ndim))
    steps = (_stored(point) - _along(zero, axis, values.ndim)) * sign
    others = _others(values, axis)
    low, high = steps.min(axis=others, initial=0.0), steps.max(axis=others, initial=0.0)
    fits = (low >= INT8.min) & (high <= INT8.max)
    amax = np.abs(values).max(axis=others, initial=0.0)
    return np.asarray(np.where(fits, np.abs(scale) * LEVELS, amax))


def _grid(point: Point, amax: Reals, axis: int | None) -> QParams:
    """Return the parameters of ``amax``, with scales that the type of the old ones holds."""
    scale = np.asarray(np.vectorize(scale_of)(amax), np.float32)
    if point.scale_type == ir.DataType.FLOAT16:
        half = np.finfo(np.float16)
        held = np.clip(scale, float(half.smallest_subnormal), float(half.max))
        scale = held.astype(np.float16).astype(np.float32)
    return QParams(scale, np.zeros(scale.shape, np.int8), axis)


def _parameters(point: Point) -> tuple[Reals, Reals]:
    """Return scale and zero point, both () or (channels,); a vector of one counts as ()."""
    if point.scale is None:
        raise AssertionError(f"{point.tensor}: a computed scale is not convertible")
    shape = () if point.scales == 1 else point.scale.shape
    scale = point.scale.reshape(shape)
    return scale, np.zeros(shape) if point.zero is None else np.resize(point.zero, shape)


def _stored(point: Point) -> Reals:
    value = point.node.inputs[0]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise AssertionError(f"{point.tensor}: integers that are fed are not convertible")
    return tensor.numpy().astype(np.float64)


def _old_axis(point: Point) -> int | None:
    return point.channel_axis if point.scales > 1 else None


def _others(values: Reals, axis: int | None) -> tuple[int, ...] | None:
    return None if axis is None else tuple(i for i in range(values.ndim) if i != axis)


def _along(values: Reals, axis: int | None, rank: int) -> Reals:
    if axis is None:
        return values
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])
