"""A part of the INT8 model in floating point, with a switch for everything that is quantized.

A switch is an ``If`` whose branches are the quantized and the float form, so that only what is
chosen is computed: the Q/DQ of one input of a node, or a layer with its INT8 or its float weights
and bias.  Weights are constants in either branch, which is what fast kernels need.

All switches off is the float model; all on is what ``insert_qdq`` made.  A bias that is stored
otherwise is switched with the weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.errors import ModelError
from quantlab.graph.corrections import Corrections
from quantlab.graph.editor import Editor
from quantlab.graph.fold_dequantize import fold_dequantize
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.passes import copy
from quantlab.graph.sites import Edge, Placement
from quantlab.graph.view import constant, only_reader
from quantlab.records import Thresholds


@dataclass(frozen=True, slots=True, eq=False)
class Switched:
    """A model with switches.

    Attributes:
        model: the tensors below are outputs too, where it makes them.
        on: name of the scalar bool input, by what it quantizes.
        layers: output of each node that has a switch, by the node's name.
        tensors: each quantized tensor, by the name it has when all switches are off, and what its
            first reader reads of it.
    """

    model: ir.Model
    on: Mapping[Edge, str]
    layers: Mapping[str, str]
    tensors: Mapping[str, tuple[str, str]]


def quantized(
    segment: ir.Model,
    placement: Placement,
    thresholds: Thresholds,
    *,
    policy: str,
    corrections: Corrections,
) -> ir.Model:
    """Return the INT8 form of a segment, weights as the constants that their integers stand for.

    Args:
        segment: in floating point; stays as it is.
        placement: of this segment, with all ties of the model.
        thresholds: of all quantized tensors of the model.
        policy: of the placement.
        corrections: of the model.
    """
    nodes = {node.name for node in segment.graph}
    here = {name: bias for name, bias in corrections.biases.items() if name in nodes}
    int8 = insert_qdq(
        segment,
        placement,
        thresholds,
        policy=policy,
        corrections=replace(corrections, biases=here),
    )
    return fold_dequantize(int8).model


def within(placement: Placement, nodes: frozenset[str]) -> Placement:
    """Return the part of a placement that is about these nodes; ties stay whole."""
    activations = []
    for activation in placement.activations:
        edges = tuple(edge for edge in activation.edges if edge.node in nodes)
        if edges:
            activations.append(replace(activation, edges=edges))
    return replace(
        placement,
        activations=tuple(activations),
        weights=tuple(w for w in placement.weights if w.edge.node in nodes),
        biases=tuple(b for b in placement.biases if b.edge.node in nodes),
    )


def switched(segment: ir.Model, int8: ir.Model, placement: Placement) -> Switched:
    """Return the segment with a switch for each edge of its placement.

    Args:
        segment: in floating point.
        int8: of ``quantized``; stays as it is.
        placement: of this segment.
    """
    editor = Editor(copy(int8))
    floats = {str(node.name): node for node in segment.graph}
    on: dict[Edge, str] = {}
    tensors = {}
    for activation in placement.activations:
        real = _read(editor.node(activation.edges[0].node), activation.edges[0].index)
        pair = _pair(real)
        source = _read(pair[0], 0)
        picked = [
            _switch_tensor(editor, edge, pair, _switch(editor, edge, on))
            for edge in activation.edges
        ]
        editor.model.graph.remove(pair[::-1], safe=True)
        tensors[activation.tensor] = (str(source.name), str(picked[0].name))
    for weight in placement.weights:
        on_weight = _switch(editor, weight.edge, on)
        _switch_layer(editor, editor.node(weight.edge.node), floats, on_weight)
    editor.model.graph.sort()
    layers = {e.node: str(floats[e.node].outputs[0].name) for e in on}
    _output(editor.model, [*layers.values(), *(name for pair in tensors.values() for name in pair)])
    return Switched(editor.model, on, layers, tensors)


def _read(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ModelError(
            f"input {index} of node {node.name!r} is empty; place this very model again"
        )
    return value


def _pair(real: ir.Value) -> tuple[ir.Node, ir.Node]:
    """Return the QuantizeLinear and DequantizeLinear that end in ``real``."""
    return _maker(_read(_maker(real), 0)), _maker(real)


def _switch(editor: Editor, edge: Edge, on: dict[Edge, str]) -> ir.Value:
    value = editor.input(f"{edge.node}.{edge.index}.on", ir.DataType.BOOL)
    on[edge] = str(value.name)
    return value


def _switch_tensor(
    editor: Editor, edge: Edge, pair: tuple[ir.Node, ir.Node], on: ir.Value
) -> ir.Value:
    """Let an input read through a Q/DQ pair of its own where ``on``; return what it reads."""
    quantize, dequantize = pair
    source, name = _read(quantize, 0), f"{edge.node}.{edge.index}"
    integers = _like(editor, quantize, list(quantize.inputs), f"{name}.integers")
    real = _like(editor, dequantize, [integers, *dequantize.inputs[1:]], f"{name}.int8")
    plain = editor.insert("Identity", (source,), f"{name}.float")
    picked = editor.insert("If", (on,), f"{name}.picked")
    _branch(editor, picked, ([_maker(integers), _maker(real)], [_maker(plain)]), like=source)
    editor.node(edge.node).replace_input_with(edge.index, picked)
    return picked


def _switch_layer(
    editor: Editor, node: ir.Node, floats: Mapping[str, ir.Node], on: ir.Value
) -> None:
    """Let the readers of a layer read it with INT8 constants where ``on``, else with float ones."""
    made = node.outputs[0]
    name, reader, int8 = str(made.name), only_reader(made), [node]
    if reader is not None and reader.op_type == "Add":
        if reader.name in floats:
            _switch_constants(editor, reader, floats[str(reader.name)], on)
        else:
            int8.append(reader)  # it adds a corrected bias
    end = int8[-1].outputs[0]
    uses, outputs = list(end.uses()), editor.model.graph.outputs
    plain = _like(editor, node, _float_inputs(editor, node, floats), f"{name}.float")
    picked = editor.insert("If", (on,), f"{name}.picked")
    for user, index in uses:
        user.replace_input_with(index, picked)
    if end.is_graph_output():
        outputs[outputs.index(end)] = picked
    made.name, picked.name = picked.name, name
    _branch(editor, picked, (int8, [_maker(plain)]), like=made)


def _like(editor: Editor, node: ir.Node, inputs: Sequence[ir.Value | None], name: str) -> ir.Value:
    """Add a node with the operator, attributes and type of another, and other inputs."""
    made = editor.insert(node.op_type, inputs, name)
    for attribute in node.attributes.values():
        _maker(made).attributes.add(attribute)
    made.type, made.shape = node.outputs[0].type, node.outputs[0].shape
    return made


Branches = tuple[Sequence[ir.Node], Sequence[ir.Node]]


def _branch(editor: Editor, picked: ir.Value, branches: Branches, *, like: ir.Value) -> None:
    """Move nodes into the branches of the If that makes ``picked``, the true one first."""
    picked.type, picked.shape = like.type, like.shape
    for title, nodes in zip(("then_branch", "else_branch"), branches, strict=True):
        editor.model.graph.remove(nodes)
        body = ir.Graph((), (nodes[-1].outputs[0],), nodes=nodes, name=title)
        _maker(picked).attributes.add(ir.AttrGraph(title, body))


def _maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ModelError(f"tensor {value.name!r} is not computed; place this very model again")
    return node


def _float_inputs(
    editor: Editor, node: ir.Node, floats: Mapping[str, ir.Node]
) -> list[ir.Value | None]:
    """Return a layer's inputs with the constants of the float model."""
    inputs = list(node.inputs[: len(floats[str(node.name)].inputs)])
    for index, value in enumerate(floats[str(node.name)].inputs):
        if value is not None and constant(value):
            inputs[index] = _stored(editor, value)
    return inputs


def _stored(editor: Editor, value: ir.Value) -> ir.Value:
    """Return a constant of the float model, added if it is not there any more."""
    known = editor.model.graph.initializers.get(str(value.name))
    if known is not None:
        return known
    # A copy, because weights beside the file are released while the model is written.
    return editor.constant(str(value.name), np.array(stored_array(value)))


def stored_array(value: ir.Value) -> NDArray[np.floating]:
    """Return a constant's array.

    Raises:
        ModelError: it has none.
    """
    if value.const_value is None:
        raise ModelError(f"{value.name!r} is not constant; place this very model again")
    return value.const_value.numpy()


def _switch_constants(editor: Editor, node: ir.Node, plain: ir.Node, on: ir.Value) -> None:
    """Switch the constants of a node that differ from those of the float model."""
    for index, value in enumerate(plain.inputs):
        stored = node.inputs[index]
        if value is None or stored is None or not constant(value) or stored.name == value.name:
            continue
        both = (on, stored, _stored(editor, value))
        picked = editor.insert("Where", both, f"{node.name}.{index}.picked")
        picked.dtype = ir.DataType.FLOAT
        node.replace_input_with(index, picked)


def _output(model: ir.Model, names: Sequence[str]) -> None:
    """Make tensors outputs where they are not yet, and are not given."""
    graph = model.graph
    values = {str(value.name): value for node in graph for value in node.outputs}
    given = {value.name for value in (*graph.inputs, *graph.outputs)}
    for name in dict.fromkeys(names):
        if name not in given:
            graph.outputs.append(values[name])
