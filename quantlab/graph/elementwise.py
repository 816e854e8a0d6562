"""Element-wise functions of one tensor: activations as one operator, and as exporters spell them.

SiLU is a Sigmoid and a Mul, GELU five operators around Erf, HardSwish an Add, a Clip, a Mul and a
Div.  Engines fuse all of them into the layer before.  They have one thing in common, by which they
are found: every way back from their end leads to the same tensor through element-wise operators.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from quantlab.graph.view import BINARY, STANDARD, UNARY, constant

ELEMENT_WISE = (
    UNARY
    | BINARY
    | frozenset(
        {
            *("Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Pow", "Min", "Max", "Gelu", "Mish"),
            *("Selu", "ThresholdedRelu", "Softsign"),
        }
    )
)

LONGEST = 32
"""Nodes of a function; GELU by Tanh has 9."""


@dataclass(frozen=True, slots=True)
class Function:
    """An element-wise function.

    Attributes:
        source: the tensor that it is a function of.
        nodes: what computes it.
    """

    source: ir.Value
    nodes: frozenset[ir.Node]

    @property
    def whole(self) -> bool:
        """Whether nothing else reads the source: it need not be stored."""
        return not self.source.is_graph_output() and self.nodes.issuperset(self.source.consumers())


def function_of(value: ir.Value) -> Function | None:
    """Return the shortest element-wise function that gives a tensor, None if there is none."""
    nodes: set[ir.Node] = set()
    open_values = [value]
    while len(nodes) < LONGEST:
        chosen = _last(open_values)
        node = None if chosen is None else chosen.producer()
        if chosen is None or node is None:
            return None
        nodes.add(node)
        open_values = [v for v in open_values if v is not chosen]
        open_values += [v for v in _computed(node) if v not in open_values]
        if len(open_values) == 1:
            return Function(open_values[0], frozenset(nodes))
    return None


def _last(values: Iterable[ir.Value]) -> ir.Value | None:
    """Return an element-wise result among ``values`` that no other one is computed from."""
    candidates = list(values)
    for value in candidates:
        node = value.producer()
        if node is None or not _is_element_wise(node):
            continue
        others = (v for v in candidates if v is not value)
        if not any(value in _behind(other) for other in others):
            return value
    return None


def _behind(value: ir.Value) -> set[ir.Value]:
    """Return the tensors that ``value`` is computed from by element-wise operators, the nearest."""
    found: set[ir.Value] = set()
    pending = [value]
    while pending and len(found) < LONGEST:
        node = pending.pop().producer()
        if node is None or not _is_element_wise(node):
            continue
        new = [v for v in _computed(node) if v not in found]
        found.update(new)
        pending += new
    return found


def _is_element_wise(node: ir.Node) -> bool:
    return node.op_type in ELEMENT_WISE and node.domain in STANDARD


def _computed(node: ir.Node) -> list[ir.Value]:
    return list(dict.fromkeys(v for v in node.inputs if v is not None and not constant(v)))
