"""The INT8 model in floating point, with the activations' scales left open.

Weights are what their integers stand for, as constants; each activation's QuantizeLinear and
DequantizeLinear read their scale from an input.  So one compiled model serves every threshold.
"""

from collections.abc import Mapping

import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.editor import Editor
from quantlab.graph.fold_dequantize import fold_dequantize
from quantlab.graph.passes import copy
from quantlab.graph.qdq_points import DEQUANTIZE, QUANTIZE, is_pair


def open_scales(int8: ir.Model) -> tuple[ir.Model, Mapping[str, str]]:
    """Return the model, and the input that holds the scale of each quantized tensor.

    Args:
        int8: of ``insert_qdq``; stays as it is.

    Raises:
        ModelError: a scale is not constant.
    """
    model = fold_dequantize(copy(int8)).model
    editor, opened = Editor(model), dict[str, str]()
    for node in list(model.graph):
        if node.op_type != QUANTIZE or not is_pair(node):
            continue
        tensor, scale = node.inputs[0], node.inputs[1]
        if tensor is None or scale is None or scale.const_value is None:
            raise ModelError(f"QuantizeLinear {node.name!r} has no constant scale; place it again")
        free = editor.input(f"{tensor.name}_scale", scale.const_value.dtype)
        for reader in (node, *(n for n in node.outputs[0].consumers() if n.op_type == DEQUANTIZE)):
            reader.replace_input_with(1, free)
        editor.remove_unused(scale)
        opened[str(tensor.name)] = str(free.name)
    return model, opened
