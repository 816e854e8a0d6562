"""Adding a constant for each output channel to layers, where they have a bias or get one.

A convolution and a Gemm have a bias input; that of a Gemm is multiplied by ``beta``.  A MatMul has
none: the Add of a constant behind it takes the correction, and where there is no such Add one is
inserted, which engines fuse.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.errors import ModelError
from quantlab.graph.editor import Editor
from quantlab.graph.view import CONVOLUTIONS, attribute_float, constant, only_reader

BIAS = 2
"""Input of a Conv, ConvTranspose or Gemm that holds the bias."""

Channels = NDArray[np.float32]


def add_biases(editor: Editor, biases: Mapping[str, Channels]) -> None:
    """Add to the outputs of layers.

    Args:
        editor: of the model to change.
        biases: by node name, (channels,) float32.

    Raises:
        ModelError: a node's bias is not constant, or has another number of channels.
    """
    for name, values in biases.items():
        node = editor.node(name)
        if node.op_type in CONVOLUTIONS:
            _add_to(editor, node, BIAS, values, node)
        elif node.op_type == "Gemm":
            _add_to(editor, node, BIAS, values / np.float32(_beta(node)), node)
        else:
            _add_behind(editor, node, values)


def _beta(node: ir.Node) -> float:
    """Return what a Gemm multiplies its bias by; 0 becomes 1, and so does that of no bias."""
    beta = attribute_float(node, "beta", 1.0)
    given = len(node.inputs) > BIAS and node.inputs[BIAS] is not None
    if given and beta:
        return beta
    node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    if given:
        node.replace_input_with(BIAS, None)
    return 1.0


def _add_to(editor: Editor, reader: ir.Node, slot: int, values: Channels, layer: ir.Node) -> None:
    """Add to a constant input of a node, or give it one."""
    old = reader.inputs[slot] if len(reader.inputs) > slot else None
    stored = values
    if old is not None:
        if old.const_value is None:
            raise ModelError(
                f"the bias of node {layer.name!r} is not constant, so it cannot be corrected; "
                "repair without 'bias' and 'adaround'"
            )
        before = np.asarray(old.const_value.numpy(), np.float32)
        if before.ndim and before.shape[-1] not in (1, values.size):
            raise _unfit(layer, values)
        stored = before + values
    made = editor.constant(f"{layer.name}_bias_corrected", stored)
    if len(reader.inputs) <= slot:
        reader.resize_inputs(slot + 1)
    reader.replace_input_with(slot, made)
    if old is not None:
        editor.remove_unused(old)


def _add_behind(editor: Editor, node: ir.Node, values: Channels) -> None:
    made = node.outputs[0]
    reader = only_reader(made)
    slot = None if reader is None else _addend(reader, made, values.size)
    if reader is not None and slot is not None:
        _add_to(editor, reader, slot, values, node)
        return
    add_behind(editor, node, values)


def add_behind(editor: Editor, node: ir.Node, values: Channels) -> None:
    """Put an Add of a constant behind a node; it takes over the node's output, also the model's.

    Args:
        editor: of the model to change.
        node: with one output.
        values: broadcast to its output's shape.
    """
    made = node.outputs[0]
    stored = editor.constant(f"{node.name}_bias_corrected", values)
    uses = list(made.uses())
    added = editor.insert("Add", (made, stored), f"{made.name}_corrected")
    added.type, added.shape = made.type, made.shape
    for user, index in uses:
        user.replace_input_with(index, added)
    if made.is_graph_output():
        _take_over(editor.model.graph, made, added)


def _addend(add: ir.Node, made: ir.Value, channels: int) -> int | None:
    """Return the input of an Add behind a layer that is a constant with these channels."""
    if add.op_type != "Add":
        return None
    other = add.inputs[1 if add.inputs[0] is made else 0]
    if not constant(other) or other is None or other.const_value is None:
        return None
    return 1 - add.inputs.index(made) if other.const_value.shape[-1:] == (channels,) else None


def _take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make ``new`` the output of the model that ``old`` was, under its name."""
    graph.outputs[graph.outputs.index(old)] = new
    name, free = old.name, new.name
    old.name = f"{free}_before"
    new.name, old.name = name, free


def _unfit(node: ir.Node, values: Channels) -> ModelError:
    return ModelError(
        f"the bias of node {node.name!r} has not the {values.size} channels of its correction; "
        "repair this very model again"
    )
