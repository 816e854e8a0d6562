"""What an INT8 model holds, whoever made it: quantized layers, their work, and types.

A layer is a convolution or product with constant weights.  It is quantized if its weights and the
activation that it reads come from DequantizeLinear, directly or moved (Transpose, Reshape).
Products of two activations are counted apart.
"""

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from quantlab.graph.macs import macs
from quantlab.graph.view import MOVING, WEIGHTED, constant

DEQUANTIZE, QUANTIZE = "DequantizeLinear", "QuantizeLinear"
BEHIND = MOVING | {DEQUANTIZE, QUANTIZE, "Cast"}


def counted(path: Path) -> dict[str, Any]:
    """Return the counts of a file.

    Returns:
        ``layers`` and ``quantized`` of them, ``macs`` and ``int8_macs`` for one sample,
        ``products`` of two activations and ``int8_products`` of them, and ``activations``: the
        types of quantized activations, "asymmetric" where zero points are not the middle.
    """
    model = _inferred(path)
    found = {
        "layers": 0,
        "quantized": 0,
        "macs": 0,
        "int8_macs": 0,
        "products": 0,
        "int8_products": 0,
    }
    for node in model.graph:
        if node.op_type not in WEIGHTED:
            continue
        left, right = node.inputs[0], node.inputs[1]
        integer = _dequantized(left) and _dequantized(right)
        stored = _stored(right)
        if stored is None:
            found["products"] += 1
            found["int8_products"] += integer
            continue
        node.replace_input_with(1, stored)
        work = macs(node) or 0
        found["layers"] += 1
        found["quantized"] += integer
        found["macs"] += work
        found["int8_macs"] += work * integer
    return found | {"activations": _types(model)}


def _inferred(path: Path) -> ir.Model:
    """Read a model with the shapes of one sample."""
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_value = 1
    del proto.graph.value_info[:]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _dequantized(value: ir.Value | None) -> bool:
    """Whether a tensor comes from DequantizeLinear, moved or not."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in MOVING:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node is not None and node.op_type == DEQUANTIZE


def _stored(value: ir.Value | None) -> ir.Value | None:
    """Return the constant behind weights; None for an activation."""
    while value is not None and not constant(value):
        node = value.producer()
        if node is None or node.op_type not in BEHIND:
            return None
        value = node.inputs[0]
    return value


def _types(model: ir.Model) -> list[str]:
    found = set()
    for node in model.graph:
        if node.op_type != QUANTIZE or _stored(node.inputs[0]) is not None:
            continue
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        if zero is None or zero.const_value is None:
            found.add("uint8")  # ONNX's default
            continue
        name = zero.const_value.dtype.name.lower()
        middle = {"int8": (0,), "uint8": (0, 128)}.get(name, ())
        symmetric = all(int(point) in middle for point in zero.const_value.numpy().ravel())
        found.add(name if symmetric else f"{name} asymmetric")
    return sorted(found)
