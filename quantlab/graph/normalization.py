"""Normalizations by a tensor's own statistics, as one operator and as exporters spell them.

LayerNorm, RMSNorm, InstanceNorm and GroupNorm divide by sqrt(mean(x * x) + epsilon), with or
without the mean of x subtracted first; that root is what the spelled-out forms are found by.
BatchNormalization is none of them: its statistics are constants.
"""

from collections.abc import Callable

import onnx_ir as ir

from quantlab.graph.view import constant

NORMALIZATIONS = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"),
        *("SimplifiedLayerNormalization", "SkipLayerNormalization", "MeanVarianceNormalization"),
        *("SkipSimplifiedLayerNormalization", "LpNormalization"),
    }
)

SQUARES = frozenset({"Mul", "Pow"})


def normalizes(node: ir.Node) -> bool:
    """Whether a node is a normalization, or the root of one that is spelled out."""
    return node.op_type in NORMALIZATIONS or bool(_mean_of_squares(node))


def divides_by_root(node: ir.Node) -> bool:
    """Whether a node is the product of a tensor and 1 / root of a normalization."""
    if node.op_type != "Mul":
        return False
    inverses = [b for b in _before(node) if b.op_type in ("Reciprocal", "Div")]
    return any(_mean_of_squares(root) for inverse in inverses for root in _before(inverse))


def parts(root: ir.Node) -> frozenset[ir.Node]:
    """Return the nodes of a normalization: itself, or all that spell it out around its root.

    Args:
        root: for which ``normalizes`` holds.
    """
    if root.op_type in NORMALIZATIONS:
        return frozenset({root})
    found = _mean_of_squares(root) | {root}
    centred = [b for n in found if n.op_type in SQUARES for b in _before(n) if b.op_type == "Sub"]
    found.update(centred)
    found.update(b for n in centred for b in _before(n) if b.op_type == "ReduceMean")
    node: ir.Node | None = root
    for wanted in (_inverts, _divides, _scales, _shifts):
        after = _after(node, wanted)
        found.update([] if after is None else [after])
        node = after or node
    return frozenset(found)


def _mean_of_squares(node: ir.Node) -> set[ir.Node]:
    """Return what a root is taken of, epsilon, mean and squares; empty if it is no such root."""
    below = _before(node) if node.op_type == "Sqrt" else []
    found = set(below)
    if len(below) == 1 and below[0].op_type in ("Add", "Max", "Clip"):  # epsilon
        below = _before(below[0])
        found.update(below)
    if len(below) != 1 or below[0].op_type != "ReduceMean":
        return set()
    squares = _before(below[0])
    if len(squares) != 1 or squares[0].op_type not in SQUARES:
        return set()
    return found | set(squares)


def _after(node: ir.Node | None, wanted: Callable[[ir.Node, ir.Value], bool]) -> ir.Node | None:
    value = None if node is None else node.outputs[0]
    readers = [] if value is None else value.consumers()
    return next((r for r in readers if value is not None and wanted(r, value)), None)


def _inverts(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node is 1 / root."""
    divided = node.op_type == "Div" and node.inputs[1] is value and constant(node.inputs[0])
    return node.op_type == "Reciprocal" or divided


def _divides(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node is x / root or x * (1 / root)."""
    if node.op_type == "Div":
        return node.inputs[1] is value
    return node.op_type == "Mul" and not any(map(constant, node.inputs))


def _scales(node: ir.Node, _: ir.Value) -> bool:
    return node.op_type == "Mul" and any(map(constant, node.inputs))


def _shifts(node: ir.Node, _: ir.Value) -> bool:
    return node.op_type == "Add" and any(map(constant, node.inputs))


def _before(node: ir.Node) -> list[ir.Node]:
    """Return the nodes that a node's computed inputs come from, each once."""
    found = [v.producer() for v in node.inputs if v is not None and not constant(v)]
    return [n for n in dict.fromkeys(found) if n is not None]
