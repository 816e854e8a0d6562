"""Folding an Add of one constant a channel into the convolution before it.

``conv(x) + c`` is the convolution with bias ``bias + c``.  Exporters that write the bias as an Add
would otherwise hide that the two are one layer, and a BatchNormalization behind it could not be
folded.  The tensor after the Add keeps its name; the one between the two nodes is gone.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.editor import Editor
from quantlab.graph.passes import PassResult, copy
from quantlab.graph.view import CONVOLUTIONS, attribute_int, only_reader


def fold_bias(model: ir.Model) -> PassResult:
    """Fold every Add of shape (channels, 1, ...) or (1, channels, 1, ...) behind a convolution."""
    editor = Editor(copy(model))
    adds = [node for node in editor.model.graph if node.op_type == "Add"]
    folded = [node for node in adds if _fold(editor, node)]
    return PassResult(editor.model, changed=bool(folded))


def _fold(editor: Editor, add: ir.Node) -> bool:
    for made, added in (add.inputs, reversed(add.inputs)):
        conv = None if made is None else made.producer()
        if made is None or conv is None or conv.op_type not in CONVOLUTIONS:
            continue
        bias = None if only_reader(made) is not add else _summed(conv, added)
        if bias is not None:
            _replace(editor, add, conv, bias)
            return True
    return False


def _summed(conv: ir.Node, added: ir.Value | None) -> NDArray[np.float32] | None:
    """Return the bias of ``conv`` plus ``added``, None if that is no constant a channel."""
    weight, old = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    parts = [value for value in (weight, added, old) if value is not None]
    if any(v.const_value is None or v.dtype != ir.DataType.FLOAT for v in parts):
        return None
    if weight is None or weight.const_value is None or added is None or added.const_value is None:
        return None
    shape = weight.const_value.numpy().shape
    conv_rank = len(shape)
    channels = shape[0]
    if conv.op_type == "ConvTranspose":
        channels = shape[1] * attribute_int(conv, "group", 1)
    extra = added.const_value.numpy()
    wanted = (channels, *(1,) * (conv_rank - 2))
    if extra.shape not in (wanted, (1, *wanted)):
        return None
    flat = extra.reshape(channels)
    return flat if old is None or old.const_value is None else old.const_value.numpy() + flat


def _replace(editor: Editor, add: ir.Node, conv: ir.Node, bias: NDArray[np.float32]) -> None:
    weight = conv.inputs[1]
    name = f"{weight.name}_bias" if weight is not None else "bias"
    inputs = (*conv.inputs[:2], editor.constant(name, bias))
    merged = ir.Node("", conv.op_type, inputs, conv.attributes.values(), name=conv.name)
    ir.convenience.replace_nodes_and_values(
        editor.model.graph, add, [conv, add], [merged], add.outputs, merged.outputs
    )
