"""Inserting QuantizeLinear and DequantizeLinear where a placement says.

A tensor gets one pair that all its quantized readers share.  Weights are stored as INT8 with a
DequantizeLinear, a scale for each output channel.  The bias stays float32: TensorRT's parser
refuses an INT32 bias.

Every axis and zero point is written out, because their defaults differ between ONNX and the parser
of TensorRT.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from quantlab.errors import CacheError, ModelError
from quantlab.graph.editor import Editor
from quantlab.graph.passes import copy
from quantlab.graph.sites import Activation, Placement, Weight
from quantlab.qparams import QParams, per_channel, quantize, symmetric, unsigned
from quantlab.records import TensorThreshold, Thresholds


def insert_qdq(
    model: ir.Model, placement: Placement, thresholds: Thresholds, *, policy: str = "tensorrt"
) -> ir.Model:
    """Return the INT8 model.

    Args:
        model: the prepared model that was placed; stays as it is.
        placement: of this model, by ``policy``.
        thresholds: at least those of ``placement.tensors``.
        policy: "tensorrt": INT8 activations; "onnxruntime": UINT8.

    Raises:
        CacheError: thresholds are missing.
        ModelError: the placement is not of this model, or weights are not finite.
    """
    missing = [name for name in placement.tensors if name not in thresholds]
    if missing:
        raise CacheError(
            f"{len(missing)} of {len(placement.tensors)} quantized tensors have no threshold: "
            f"{', '.join(missing)}; calibrate this model again"
        )
    editor = Editor(copy(model))
    stored: dict[tuple[str, int | None], ir.Value] = {}
    for weight in placement.weights:
        key = (weight.initializer, weight.axis)
        if key not in stored:
            stored[key] = _store(editor, weight)
        editor.node(weight.edge.node).replace_input_with(weight.edge.index, stored[key])
    for weight in placement.weights:
        editor.remove_unused(editor.tensor(weight.initializer))
    # Tied tensors share the zero point too: one that is ever negative makes all of them signed.
    lowest = {
        name: min(thresholds[member].minimum for member in group)
        for group in placement.ties
        for name in group
    }
    for activation in placement.activations:
        threshold = thresholds[activation.tensor]
        minimum = lowest.get(activation.tensor, threshold.minimum)
        _insert(editor, activation, grid(replace(threshold, minimum=minimum), policy))
    editor.model.graph.sort()
    return editor.model


def grid(threshold: TensorThreshold, policy: str) -> QParams:
    """Return how a policy quantizes an activation with this threshold."""
    if policy == "onnxruntime":
        return unsigned(threshold.threshold, threshold.minimum)
    return symmetric(threshold.threshold)


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


def _store(editor: Editor, weight: Weight) -> ir.Value:
    name = weight.initializer
    source = editor.tensor(name)
    if source.const_value is None:
        raise ModelError(f"weights {name!r} are not constant; place this very model again")
    array = source.const_value.numpy()
    if not np.isfinite(array).all():
        raise ModelError(
            f"weights {name!r} hold NaN or infinite values, which no scale fits; repair the model"
        )
    if weight.axis is None:
        params = symmetric(float(abs(array).max(initial=0.0)))
    else:
        params = per_channel(array, weight.axis)
    inputs = (
        editor.constant(f"{name}_quantized", quantize(array, params)),
        editor.constant(f"{name}_scale", params.scale),
        editor.constant(f"{name}_zero_point", params.zero_point),
    )
    real = editor.insert("DequantizeLinear", inputs, f"{name}_dequantized", axis=weight.axis)
    real.dtype, real.shape = ir.DataType.FLOAT, source.shape
    return real
