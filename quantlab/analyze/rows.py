"""What is judged: each layer, quantized tensor and quantized weight, as a set of inputs of nodes.

The layers divide all quantized inputs among them, and so do tensors and weights together.  A tensor
that several nodes read quantized is one row with an input of each; the row of each node as a layer
has only its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from quantlab.graph.sites import Edge, Placement

Kind = Literal["layer", "activation", "weight"]


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is quantized or not as one.

    Attributes:
        name: of the node, tensor or initializer.
        kind: which of them it is.
        layer: node that reads it, the first one.
        op: type of that node.
        edges: the inputs that it is about.
    """

    name: str
    kind: Kind
    layer: str
    op: str
    edges: frozenset[Edge]


def rows(model: ir.Model, placement: Placement) -> tuple[Row, ...]:
    """Return all rows: layers in graph order, then tensors, then weights.

    Args:
        model: that was placed.
        placement: of it.
    """
    ops = {str(node.name): node.op_type for node in model.graph}
    found: dict[tuple[Kind, str], set[Edge]] = {}
    for kind, name, edge in _edges(placement):
        found.setdefault((kind, name), set()).add(edge)
    order = {name: index for index, name in enumerate(ops)}
    ranks = {"layer": 0, "activation": 1, "weight": 2}
    made = []
    for (kind, name), edges in found.items():
        first = min((edge.node for edge in edges), key=order.__getitem__)
        made.append(Row(name, kind, first, ops[first], frozenset(edges)))
    return tuple(sorted(made, key=lambda row: (ranks[row.kind], order[row.layer])))


def _edges(placement: Placement) -> Iterator[tuple[Kind, str, Edge]]:
    for activation in placement.activations:
        for edge in activation.edges:
            yield "activation", activation.tensor, edge
            yield "layer", edge.node, edge
    for weight in placement.weights:
        yield "weight", weight.initializer, weight.edge
        yield "layer", weight.edge.node, weight.edge
