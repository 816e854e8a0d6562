"""Reductions of a tensor, in every opset."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quantlab.graph.editor import Editor
from quantlab.graph.model import opset

AXES_AS_INPUT = 18
"""Opset from which ReduceL1, ReduceMax and ReduceMean take their axes as an input."""


def reduce(
    editor: Editor, op: str, value: ir.Value, axes: Sequence[int] | None, *, keepdims: bool
) -> ir.Value:
    """Add a reduction at the end of the graph, called after ``value`` and ``op``, and return it.

    Args:
        editor: of the model.
        op: one of those that ``AXES_AS_INPUT`` names.
        value: what is reduced; of a known type.
        axes: that are reduced; all if None.
        keepdims: whether they stay, with 1 element.
    """
    name = f"{value.name}_{op}"
    as_input = opset(editor.model) >= AXES_AS_INPUT
    inputs = [value]
    if axes is not None and as_input:
        inputs.append(editor.constant(f"{name}_axes", np.array(axes, np.int64)))
    made = editor.insert(op, inputs, name)
    node = made.producer()
    assert node is not None  # noqa: S101  it was made here
    node.attributes["keepdims"] = ir.AttrInt64("keepdims", int(keepdims))
    if axes is not None and not as_input:
        node.attributes["axes"] = ir.AttrInt64s("axes", list(axes))
    made.type = value.type
    return made
