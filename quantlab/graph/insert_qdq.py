"""Inserting QuantizeLinear and DequantizeLinear where a placement says.

A tensor gets one pair that all its quantized readers share.  Weights are stored as INT8 with a
DequantizeLinear, a scale for each output channel.  The bias stays float32: TensorRT's parser
refuses an INT32 bias, and only the policy for ONNX Runtime asks for some.

Where the model around the integers is to be FP16, the scales are numbers that FP16 has, so that
``to_fp16`` changes no integer.

Every axis and zero point is written out, because their defaults differ between ONNX and the parser
of TensorRT.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.errors import CacheError, ModelError
from quantlab.graph.add_biases import add_biases
from quantlab.graph.corrections import NONE, Corrections, StoredWeight
from quantlab.graph.editor import Editor
from quantlab.graph.passes import copy
from quantlab.graph.sites import Activation, Edge, Placement, Weight
from quantlab.qparams import (
    QParams,
    in_float16,
    per_channel,
    quantize,
    quantize_bias,
    symmetric,
    unsigned,
)
from quantlab.records import TensorThreshold, Thresholds


def insert_qdq(
    model: ir.Model,
    placement: Placement,
    thresholds: Thresholds,
    *,
    policy: str = "tensorrt",
    float16: bool = False,
    corrections: Corrections = NONE,
) -> ir.Model:
    """Return the INT8 model.

    Args:
        model: the prepared model that was placed; stays as it is.
        placement: of this model, by ``policy``.
        thresholds: at least those of ``placement.tensors``.
        policy: "tensorrt", "conservative": INT8 activations; "onnxruntime": UINT8; "openvino":
            UINT8 where never negative.
        float16: whether all scales are to be numbers that FP16 has.
        corrections: weights and biases that are stored otherwise; those of layers that are not
            placed are not needed.

    Raises:
        CacheError: thresholds are missing.
        ModelError: the placement is not of this model, weights are not finite, or a scale is
            beyond FP16.
    """
    missing = [name for name in placement.tensors if name not in thresholds]
    if missing:
        raise CacheError(
            f"{len(missing)} of {len(placement.tensors)} quantized tensors have no threshold: "
            f"{', '.join(missing)}; calibrate this model again"
        )
    editor, fit = Editor(copy(model)), _float16 if float16 else _float32
    stored: dict[tuple[str, int | None], ir.Value] = {}
    for weight in placement.weights:
        key = (weight.initializer, weight.axis)
        if key not in stored:
            stored[key] = _store(editor, weight, fit, corrections.weights.get(weight.initializer))
        editor.node(weight.edge.node).replace_input_with(weight.edge.index, stored[key])
    for weight in placement.weights:
        editor.remove_unused(editor.tensor(weight.initializer))
    found = grids(placement, thresholds, policy)
    for activation in placement.activations:
        _insert(editor, activation, fit(activation.tensor, found[activation.tensor]))
    integers = {weight.edge.node for weight in placement.weights}
    add_biases(editor, {n: b for n, b in corrections.biases.items() if n in integers})
    for bias in placement.biases:
        _store_bias(editor, bias.edge)
    editor.model.graph.sort()
    return editor.model


def grids(placement: Placement, thresholds: Thresholds, policy: str) -> dict[str, QParams]:
    """Return how each quantized tensor of a placement is quantized."""
    # Tied tensors share the zero point too: one that is ever negative makes all of them signed.
    lowest: dict[str, float] = {}
    for group in placement.ties:
        lowest |= dict.fromkeys(group, min(thresholds[member].minimum for member in group))
    found = {}
    for name in placement.tensors:
        minimum = lowest.get(name, thresholds[name].minimum)
        found[name] = grid(replace(thresholds[name], minimum=minimum), policy)
    return found


def grid(threshold: TensorThreshold, policy: str) -> QParams:
    """Return how a policy quantizes an activation with this threshold."""
    unfit = policy == "openvino" and threshold.minimum < 0
    if policy in ("onnxruntime", "openvino") and not unfit:
        return unsigned(threshold.threshold, threshold.minimum)
    return symmetric(threshold.threshold)


Fit = Callable[[str, QParams], QParams]


def _float32(tensor: str, params: QParams) -> QParams:  # noqa: ARG001  # as _float16
    return params


def _float16(tensor: str, params: QParams) -> QParams:
    try:
        return in_float16(params)
    except ValueError as error:
        raise ModelError(
            f"tensor {tensor!r}: {error}; build INT8 with FP32 around it ('engines.around: fp32')"
        ) from error


def _insert(editor: Editor, activation: Activation, params: QParams) -> None:
    name = activation.tensor
    source = editor.tensor(name)
    scale = editor.constant(f"{name}_scale", params.scale)
    zero = editor.constant(f"{name}_zero_point", params.zero_point)
    quantized = editor.insert("QuantizeLinear", (source, scale, zero), f"{name}_quantized")
    real = editor.insert("DequantizeLinear", (quantized, scale, zero), f"{name}_dequantized")
    quantized.type, real.dtype = zero.type, ir.DataType.FLOAT
    quantized.shape, real.shape = source.shape, source.shape
    for edge in activation.edges:
        editor.node(edge.node).replace_input_with(edge.index, real)


def _store(editor: Editor, weight: Weight, fit: Fit, corrected: StoredWeight | None) -> ir.Value:
    name = weight.initializer
    source = editor.tensor(name)
    if source.const_value is None:
        raise ModelError(f"weights {name!r} are not constant; place this very model again")
    array = source.const_value.numpy()
    if not np.isfinite(array).all():
        raise ModelError(
            f"weights {name!r} hold NaN or infinite values, which no scale fits; repair the model"
        )
    integers: NDArray[np.int8 | np.uint8]
    if corrected is not None:
        params, integers = fit(name, corrected.params), corrected.integers
    else:
        params = fit(name, nearest_grid(array, weight.axis))
        integers = quantize(array, params)
    inputs = (
        editor.constant(f"{name}_quantized", integers),
        editor.constant(f"{name}_scale", params.scale),
        editor.constant(f"{name}_zero_point", params.zero_point),
    )
    real = editor.insert("DequantizeLinear", inputs, f"{name}_dequantized", axis=weight.axis)
    real.dtype, real.shape = ir.DataType.FLOAT, source.shape
    return real


def nearest_grid(weights: NDArray[np.floating], axis: int | None) -> QParams:
    """Return the grid that spans the range of weights: a scale an index of ``axis``, or one."""
    if axis is None:
        return symmetric(float(abs(weights).max(initial=0.0)))
    return per_channel(weights, axis)


def _store_bias(editor: Editor, edge: Edge) -> None:
    """Store a bias as INT32 on the grid of the products: the scales of both factors multiplied."""
    node = editor.node(edge.node)
    source = node.inputs[edge.index] if edge.index < len(node.inputs) else None
    if source is None:  # the policy names the layer, which has no bias and was given none
        return
    if source.const_value is None:
        raise ModelError(f"bias {source.name!r} is not constant; place this very model again")
    name, array = source.name, source.const_value.numpy()
    scale = _scale(node, 0) * _scale(node, 1)
    inputs = (
        editor.constant(f"{name}_quantized", quantize_bias(array, scale)),
        editor.constant(f"{name}_scale", scale),
    )
    real = editor.insert("DequantizeLinear", inputs, f"{name}_dequantized", axis=0)
    real.dtype, real.shape = ir.DataType.FLOAT, source.shape
    node.replace_input_with(edge.index, real)
    editor.remove_unused(source)


def _scale(node: ir.Node, index: int) -> NDArray[np.float32]:
    """Return the scale of what a node reads through DequantizeLinear."""
    value = node.inputs[index]
    pair = None if value is None else value.producer()
    scale = None if pair is None else pair.inputs[1]
    if scale is None or scale.const_value is None:
        raise ModelError(f"input {index} of node {node.name!r} is not quantized; place it again")
    return np.asarray(scale.const_value.numpy(), np.float32)
