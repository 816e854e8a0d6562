"""Writing ``x - conv(y)`` as ``x + conv'(y)``, where conv' has the weights and the bias negated.

A network that estimates what is to be taken off its input (noise, blur) ends like this.  Engines
fuse an Add into a convolution, and no Sub.  Negating is exact, and so the outputs keep their bits.
What the convolution gives keeps its name, and has the other sign: its range is the same.
"""

import numpy as np
import onnx_ir as ir

from quantlab.graph.editor import Editor
from quantlab.graph.passes import PassResult, copy
from quantlab.graph.view import CONVOLUTIONS, STANDARD, constant, only_reader


def add_negated(model: ir.Model) -> PassResult:
    """Turn every Sub of what a convolution of constant weights gives to it alone into an Add."""
    editor = Editor(copy(model))
    found = [node for node in editor.model.graph if node.op_type == "Sub"]
    turned = [node for node in found if _turn(editor, node)]
    return PassResult(editor.model, changed=bool(turned))


def _turn(editor: Editor, sub: ir.Node) -> bool:
    taken = sub.inputs[1]
    conv = None if taken is None else taken.producer()
    if taken is None or conv is None or only_reader(taken) is not sub:
        return False
    plain = conv.op_type in CONVOLUTIONS and {conv.domain, sub.domain} <= {*STANDARD}
    if not plain or not all(_negatable(value) for value in conv.inputs[1:] if value is not None):
        return False
    for slot, value in enumerate(conv.inputs):
        if slot and value is not None and value.const_value is not None:
            negated = editor.constant(
                f"{value.name}_negated", np.negative(value.const_value.numpy())
            )
            conv.replace_input_with(slot, negated)
            editor.remove_unused(value)
    sub.op_type = "Add"
    return True


def _negatable(value: ir.Value) -> bool:
    return constant(value) and value.dtype is not None and value.dtype.is_floating_point()
