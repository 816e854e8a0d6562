"""Turning weights that are stored as integers into floats, which placement quantizes again.

A weight-only model keeps its weights as integers with a DequantizeLinear behind them.  Quantized
again on a grid that spans what they span, they become the same integers.

``fold_constants`` does the same for blocks of scales and for FP16, but not before opset 19.
"""

import numpy as np
import onnx_ir as ir

from quantlab.graph.covering import real
from quantlab.graph.editor import Editor
from quantlab.graph.passes import PassResult, copy
from quantlab.graph.qdq_points import DEQUANTIZE, Point, is_pair, read

INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4)


def fold_dequantize(model: ir.Model) -> PassResult:
    """Replace every DequantizeLinear of constants in the main graph by its value."""
    editor = Editor(copy(model))
    nodes = [n for n in editor.model.graph if n.op_type == DEQUANTIZE and is_pair(n)]
    folded = [point for point in map(read, nodes) if _plain(point)]
    read_by_them = [value for point in folded for value in point.node.inputs if value is not None]
    for point in folded:
        stored = editor.constant(f"{point.tensor}_float", real(point).astype(np.float32))
        ir.convenience.replace_all_uses_with(point.node.outputs[0], stored)
        editor.model.graph.remove(point.node, safe=True)
    for value in read_by_them:
        editor.remove_unused(value)
    return PassResult(editor.model, changed=bool(folded))


def _plain(point: Point) -> bool:
    zero_given = len(point.node.inputs) > 2 and point.node.inputs[2] is not None
    return (
        point.weights
        and point.quantizer is None
        and point.dtype in INTEGERS
        and point.scale is not None
        and point.scale.ndim <= 1
        and point.scale_type == ir.DataType.FLOAT
        and (point.scales == 1 or point.channel_axis is not None)
        and (point.zero is not None or not zero_given)
        and not point.node.outputs[0].is_graph_output()
    )
