"""Cutting a float model into consecutive segments, each a model of its own.

A segment reads tensors that earlier segments or the caller made and returns those that later ones
or the caller read.  Run one after the other they compute what the whole model computes.  A variant
that differs in one segment only shares everything before it with all others.

Cuts fall in the main graph alone.  They divide the layers that are quantized evenly, and of the
places nearby the one that the fewest elements cross is taken.  No cut falls where a tensor of
unknown type or number of axes would cross; a model without a place for cuts is one segment.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import onnx_ir as ir

from quantlab.graph.tap import part
from quantlab.graph.view import constant

NEARBY = 0.35
"""How far from an even division a cut may fall, in segments."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Some consecutive nodes of a model.

    Attributes:
        model: of these nodes, in floating point.
        nodes: their names.
        inputs: tensors that it reads.
        outputs: tensors that it makes for later segments and for the caller.
        live: all tensors that are still needed after it.
    """

    model: ir.Model
    nodes: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    live: frozenset[str]


def cut(
    model: ir.Model, layers: Collection[str], *, most: int, whole: Collection[str] = ()
) -> tuple[Segment, ...]:
    """Return the segments of a model, in order.

    Args:
        model: stays as it is.
        layers: names of the nodes that are to be divided evenly.
        most: how many segments there may be.
        whole: names of nodes that stay in one segment with all that read them.
    """
    nodes = list(model.graph)
    read = [list(_reads(node, model.graph)) for node in nodes]
    last = {value: index for index, values in enumerate(read) for value in values}
    last |= dict.fromkeys(model.graph.outputs, len(nodes))
    crossing = _crossing(nodes, last, whole)
    places = [0, *_places(nodes, layers, crossing, most), len(nodes)]
    found = []
    for start, stop in pairwise(places):
        live = frozenset(str(value.name) for value, index in last.items() if index >= stop)
        found.append(_segment(model, nodes[start:stop], read[start:stop], live))
    return tuple(segment for segment in found if segment.outputs)


def _reads(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the computed tensors of ``graph`` that a node or the bodies inside it read."""
    for inner in ir.traversal.RecursiveGraphIterator(ir.GraphView((), (), nodes=(node,))):
        for value in inner.inputs:
            if value is not None and value.graph is graph and not constant(value):
                yield value
        for attribute in inner.attributes.values():
            for body in _bodies(attribute):
                yield from (v for v in body.outputs if v.graph is graph and not constant(v))


def _bodies(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()


def _crossing(
    nodes: Sequence[ir.Node], last: dict[ir.Value, int], whole: Collection[str]
) -> list[float]:
    """Return how many elements of a sample are live before each node; infinite where no cut is."""
    change = np.zeros(len(nodes) + 1)
    barred = np.zeros(len(nodes) + 1)
    for index, node in enumerate(nodes):
        for value in node.outputs:
            stop = last.get(value, index)
            size = _elements(value)
            counts = barred if size is None or node.name in whole else change
            counts[index + 1 : stop + 1] += size or 1
    return [float("inf") if bar else float(size) for size, bar in zip(change, barred, strict=True)]


def _elements(value: ir.Value) -> int | None:
    """Return the elements of a sample, an open axis as 1; None if it cannot cross a cut."""
    if not isinstance(value.type, ir.TensorType) or value.dtype is None or value.shape is None:
        return None
    return prod(dim for dim in value.shape if isinstance(dim, int) and dim > 0)


def _places(
    nodes: Sequence[ir.Node], layers: Collection[str], crossing: Sequence[float], most: int
) -> list[int]:
    """Return the indices of the nodes in front of which to cut, rising."""
    done = np.concatenate([[0], np.cumsum([node.name in layers for node in nodes])])
    share = done[-1] / most
    chosen = set()
    for turn in range(1, most):
        off = abs(done - turn * share)
        near = [i for i in range(1, len(nodes)) if off[i] <= max(NEARBY * share, 0.5)]
        best = min(near, key=lambda i: (crossing[i], off[i]), default=0)
        if best and crossing[best] != float("inf"):
            chosen.add(best)
    return sorted(chosen)


def _segment(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    read: Sequence[Sequence[ir.Value]],
    live: frozenset[str],
) -> Segment:
    made = {value for node in nodes for value in node.outputs}
    inputs = dict.fromkeys(value for values in read for value in values if value not in made)
    outputs = [v for node in nodes for v in node.outputs if v.name in live and v.name]
    found = part(model, list(inputs), outputs)
    return Segment(
        model=found,
        nodes=frozenset(str(node.name) for node in found.graph),
        inputs=tuple(str(value.name) for value in inputs),
        outputs=tuple(str(value.name) for value in outputs),
        live=live,
    )
