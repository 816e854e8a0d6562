"""Rules for what stands between layers: sums, gates, pools, resizing, and moving elements.

Such a node runs in INT8 where it reads what INT8 layers made and is read by INT8 layers: then Q/DQ
before it let those layers hand on integers.
"""

from collections.abc import Sequence

import onnx_ir as ir

from quantlab.graph.elementwise import function_of
from quantlab.graph.moving import COPIES, commutes, ends, moved, origins
from quantlab.graph.normalization import divides_by_root
from quantlab.graph.residual import identity_branch, normalized_stream
from quantlab.graph.rules import FLOAT, GUIDE, POLICY, Choice, Known, Rule
from quantlab.graph.view import IMAGE_RANK, WEIGHTED, constant, graph_input, is_average, readers

RESIZE = "Resize"


def _constant_add(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == "Add" and any(map(constant, node.inputs)) else None


def _normalized_stream(node: ir.Node, known: Known) -> Choice | None:
    if node.op_type != "Add" or identity_branch(node, known) is None:
        return None
    return FLOAT if normalized_stream(node) else None


def _residual_add(node: ir.Node, known: Known) -> Choice | None:
    if node.op_type != "Add":
        return None
    branch = identity_branch(node, known)
    return None if branch is None else Choice((branch,))


def _float_add(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == "Add" else None


def _integer_gate(node: ir.Node, known: Known) -> Choice | None:
    if node.op_type != "Mul":
        return None
    for index, (stream, gate) in enumerate((node.inputs, reversed(node.inputs))):
        if stream is None or gate is None or not _one_a_channel(stream, gate):
            continue
        others = [reader for reader in stream.consumers() if reader is not node]
        taken = all(is_average(n) or (n.op_type in WEIGHTED and known.quantized(n)) for n in others)
        if taken and not stream.is_graph_output() and _made_by_integer_layer(stream, known):
            return Choice((index,))
    return None


def _one_a_channel(stream: ir.Value, gate: ir.Value) -> bool:
    """Whether ``gate`` is computed and has one value for each channel of an image ``stream``."""
    if constant(gate) or stream.shape is None or gate.shape is None:
        return False
    if len(stream.shape) != len(gate.shape) or len(stream.shape) < IMAGE_RANK:
        return False
    wide = [sum(dim != 1 for dim in shape[1:]) for shape in (gate.shape, stream.shape)]
    return wide[0] <= 1 < wide[1]


def _gate(node: ir.Node, _: Known) -> Choice | None:
    if node.op_type != "Mul" or any(map(constant, node.inputs)):
        return None
    alone = function_of(node.outputs[0]) is not None or divides_by_root(node)
    return None if alone else FLOAT


def _integer_max(node: ir.Node, known: Known) -> Choice | None:
    return Choice((0,)) if node.op_type == "MaxPool" and _between(node, known) else None


def _float_max(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == "MaxPool" else None


def _integer_average(node: ir.Node, known: Known) -> Choice | None:
    if not is_average(node) or not _between(node, known):
        return None
    others = {reader for reader in _consumers(node.inputs[0]) if reader is not node}
    kinds = WEIGHTED | {"Add", "Concat", "Mul"}
    integer = all(n.op_type in kinds and known.quantized(n) for n in others)
    return Choice((0,)) if integer else None


def _float_average(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if is_average(node) else None


def _integer_resize(node: ir.Node, known: Known) -> Choice | None:
    if node.op_type != RESIZE or moved(node):
        return None
    return Choice((0,)) if _made_by_integers(node, known) and _between(node, known) else None


def _float_resize(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == RESIZE and not moved(node) else None


def _integer_concat(node: ir.Node, known: Known) -> Choice | None:
    return moves_integers(node, known) if node.op_type == "Concat" else None


def _integer_copy(node: ir.Node, known: Known) -> Choice | None:
    return moves_integers(node, known) if node.op_type in COPIES else None


def moves_integers(node: ir.Node, known: Known) -> Choice | None:
    """Quantize what a node moves if INT8 layers made it and INT8 layers read it, and no other."""
    inputs = tuple(i for i in moved(node) if not constant(node.inputs[i]))
    if not inputs:
        return None
    taken = all(
        reader is not None and known.reads_integers(reader, index) for reader, index in ends(node)
    )
    return Choice(inputs) if taken and _made_by_integers(node, known) else None


def _concat(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == "Concat" else None


def _consumers(value: ir.Value | None) -> Sequence[ir.Node]:
    return () if value is None else value.consumers()


def _between(node: ir.Node, known: Known) -> bool:
    """Whether a pool reads no input of the model and is read by a quantized node.

    A MaxPool is quantized if its readers are, and they are asked anyway.
    """

    def wants(reader: ir.Node) -> bool:
        return reader.op_type != "MaxPool" and known.quantized(reader)

    return not graph_input(node.inputs[0]) and bool(readers(node.outputs[0], wants))


def _looked_through(node: ir.Node) -> tuple[int, ...]:
    """Which inputs of a node are looked through for the layers behind it."""
    pooled = is_average(node) or node.op_type == RESIZE
    return (0,) if pooled else commutes(node)


def _made_by_integers(node: ir.Node, known: Known) -> bool:
    """Whether all that a node moves or pools comes from quantized layers."""
    found = list(origins(node, _looked_through))
    return bool(found) and all(_made_by_integer_layer(value, known) for value in found)


def _made_by_integer_layer(value: ir.Value, known: Known) -> bool:
    """Whether a quantized layer, residual Add or gate gives a tensor, behind its activation."""
    while True:
        node = value.producer()
        if node is None:
            return False
        if node.op_type in WEIGHTED | {"Add", "Mul"} and known.quantized(node):
            return True
        function = function_of(value)
        if function is None or not function.whole:
            return False
        value = function.source


ADDS: tuple[Rule, ...] = (
    Rule("constant-add", "adding a constant is fused into its neighbour", POLICY, _constant_add),
    Rule(
        "normalized-stream",
        "a branch normalizes the stream it is added to: rounding the stream at every Add adds up, "
        "as in ConvNeXt",
        POLICY,
        _normalized_stream,
    ),
    Rule(
        "residual-add",
        "the Add is fused into the convolution of one branch, so only the other branch is read "
        "as INT8",
        GUIDE,
        _residual_add,
    ),
    Rule("float-add", "no convolution to fuse it into", POLICY, _float_add),
    Rule(
        "integer-gate",
        "a squeeze-and-excitation gate scales what an INT8 layer made and reads it as INT8, so "
        "that the layer need not store floats; the gate itself stays in floating point",
        POLICY,
        _integer_gate,
    ),
    Rule(
        "gate",
        "both factors are computed, as in a gated unit: their product is made in floating point "
        "and rounded once, for whoever reads it",
        POLICY,
        _gate,
    ),
)

POOLS: tuple[Rule, ...] = (
    Rule(
        "integer-max",
        "between INT8 neighbours it takes INT8 in, on the scale of its output",
        GUIDE,
        _integer_max,
    ),
    Rule("float-max", "what it feeds is not quantized", GUIDE, _float_max),
    Rule(
        "integer-average",
        "between INT8 neighbours it takes INT8 in; its output has a scale of its own",
        GUIDE,
        _integer_average,
    ),
    Rule(
        "float-average",
        "what it feeds is not quantized, or what it reads is also read in floating point",
        GUIDE,
        _float_average,
    ),
    Rule(
        "integer-resize",
        "between INT8 neighbours it takes INT8 in; what it interpolates has a scale of its own",
        POLICY,
        _integer_resize,
    ),
    Rule(
        "float-resize",
        "it interpolates, and what it reads or feeds is not quantized",
        POLICY,
        _float_resize,
    ),
)

MOVES: tuple[Rule, ...] = (
    Rule(
        "integer-concat",
        "INT8 layers on all sides: inputs and output share one scale, and integers are copied",
        GUIDE,
        _integer_concat,
    ),
    Rule(
        "integer-copy",
        "it only moves elements between INT8 layers, so it moves integers, on one scale",
        GUIDE,
        _integer_copy,
    ),
    Rule(
        "concat",
        "has no Q/DQ of its own; its quantized inputs and output share one scale",
        POLICY,
        _concat,
    ),
)
