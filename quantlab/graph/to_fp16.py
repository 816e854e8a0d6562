"""The FP16 model: ONNX Runtime's converter, with FP32 inputs and outputs.

The converter inserts Casts where an operator has no FP16 form or a node is pinned to FP32, and
clips what FP16 cannot hold.  A model with Q/DQ nodes keeps its integers: made with scales that FP16
has (insert_qdq), it dequantizes to the very numbers it had.
"""

import warnings
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.passes import copy
from quantlab.graph.pins import kept_in_fp32
from quantlab.graph.raise_opset import raise_opset

QDQ_OPSET = 19
"""QuantizeLinear takes FP16 from this opset on."""

LARGEST = float(np.finfo(np.float16).max)
"""Largest finite FP16 value, 65504."""


@dataclass(frozen=True, slots=True)
class Fp16:
    """A model in FP16.

    Attributes:
        model: valid ONNX; inputs, outputs and inner tensors keep their names.
        clipped: initializers with finite values beyond LARGEST, which were clipped to it.
    """

    model: ir.Model
    clipped: tuple[str, ...]


def to_fp16(model: ir.Model) -> Fp16:
    """Convert a prepared FP32 model, or a Q/DQ model made of one; ``model`` stays as it is.

    Raises:
        ModelError: the converter cannot handle the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    source = raise_opset(model, QDQ_OPSET).model if _quantizes(model) else model
    proto = ir.to_proto(ir.external_data.load_to_model(copy(source)))
    # The converter takes what stands among the tensors' types for a tensor that is computed, and
    # would round the weights of a node that stays in FP32.
    weights = {tensor.name for tensor in proto.graph.initializer}
    computed = [info for info in proto.graph.value_info if info.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(computed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a line for each clipped value; `clipped` names them
        try:
            made = convert_float_to_float16(
                proto,
                keep_io_types=True,
                disable_shape_infer=True,
                node_block_list=kept_in_fp32(model),
            )
            converted = ir.from_proto(made)
        except (ValueError, KeyError, AttributeError, TypeError, ir.serde.SerdeError) as error:
            why = error.__cause__ or error  # what a SerdeError wraps says more than it does
            raise ModelError(f"the model cannot be converted to FP16: {why}") from error
    _widen(converted, {node.name for node in source.graph})
    converted.graph.sort()  # the converter appends its Casts at the end
    halves = {
        str(name)
        for name, value in converted.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT16
    }
    clipped = tuple(
        str(name)
        for name, value in model.graph.initializers.items()
        if name in halves and value.const_value is not None and _exceeds(value.const_value)
    )
    return Fp16(converted, clipped)


def _widen(converted: ir.Model, original: Set[str | None]) -> None:
    """Feed nodes that stay in FP32 what was FP32 before the converter rounded it to FP16.

    Args:
        converted: model to change.
        original: names of the nodes that the converter did not add.
    """
    for node in converted.graph:
        source = node.inputs[0] if node.op_type == "Cast" and node.name not in original else None
        before = None if source is None else source.producer()
        if source is None or before is None or before.op_type != "Cast" or before.name in original:
            continue
        exact, widened = before.inputs[0], node.outputs[0]
        if exact is None or widened.dtype != exact.dtype:
            continue
        if widened.is_graph_output():
            if exact.producer() is None or exact.is_graph_output():
                continue
            exact.name, widened.name = widened.name, None
        widened.replace_all_uses_with(exact, replace_graph_outputs=True)
        converted.graph.remove(node, safe=True)
        if not source.uses() and not source.is_graph_output():
            converted.graph.remove(before, safe=True)


def _quantizes(model: ir.Model) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph)


def _exceeds(tensor: ir.TensorProtocol) -> bool:
    array = tensor.numpy()
    return bool((np.abs(array[np.isfinite(array)]) > LARGEST).any())
