"""Channel sets: tensors whose channels can only be scaled together.

Places (``channel_roles``) that an operator ties are one set.  A set is written where every tensor
in it is made by constants or by operators that factors pass, and only such operators and constants
read it: then its writers times s and its readers over s leave the network's function as it is.  A
tensor that is made otherwise, by a GELU or the caller for example, is the head of a set where it is
the only one: a product by s put behind it does what a writer would.  Anything else, a graph output
or a reader that takes no factor, breaks the set up: what is left are single tensors, with products
by s in front of the weighted layers that read them.

ReLU6: a factor passes Clip(0, 6) only where the upper bound never acts.  It is let through where
the largest value of each channel that was seen stays below the bound, and Clip then becomes Relu;
the function is equal on what was seen.  Else it ends the set.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.channel_roles import End, Place, Touch, size, touches
from quantlab.graph.normalization import NORMALIZATIONS
from quantlab.graph.view import WEIGHTED, only_reader, upper_bound

Ranges = Mapping[str, NDArray[np.float64]]
"""Largest magnitude of each channel that was seen, (channels,), by tensor."""


@dataclass(frozen=True, slots=True)
class ChannelSet:
    """Tensors that share their factors, and the constants that write and read them.

    Attributes:
        tensors: by name, in graph order, with the axis of the channels.
        channels: how many.
        writers: constants to multiply.
        readers: constants to divide.
        behind: nodes that are to read the first of the tensors, the head, times the factors; none
            where writers make every tensor.
        clips: nodes whose upper bound was never reached, to be replaced by Relu.
        normalized: whether a normalization writes it.
    """

    tensors: Mapping[str, int]
    channels: int
    writers: tuple[End, ...]
    readers: tuple[End, ...]
    behind: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    normalized: bool = False


def axes(model: ir.Model) -> dict[str, int]:
    """Return the tensors of which channel ranges are of use, in graph order, and their axes."""
    found: dict[str, int] = {}
    for channel_set in channel_sets(model, None):
        found |= {name: axis for name, axis in channel_set.tensors.items() if name not in found}
    order = {str(value.name): place for place, value in enumerate(_values(model))}
    return dict(sorted(found.items(), key=lambda item: order[item[0]]))


def channel_sets(model: ir.Model, ranges: Ranges | None) -> list[ChannelSet]:
    """Return the sets that have a reader, each tensor in one of them.

    Args:
        model: prepared.
        ranges: of tensors named by ``axes``; None takes every upper bound for one that never acts.
    """
    at = {node: _passing(node, ranges) for node in model.graph}
    found: list[ChannelSet] = []
    taken: set[str] = set()
    for places in _tied(model, at):
        for one in _whole(places, at) or _broken(places, at):
            if one.readers and not taken & one.tensors.keys():
                found.append(one)
                taken |= one.tensors.keys()
    return found


def _passing(node: ir.Node, ranges: Ranges | None) -> list[Touch]:
    if node.op_type == "Clip":
        bound = upper_bound(node)
        if bound is None or not (ranges is None or _below(node.outputs[0], bound, ranges)):
            return []
    return touches(node)


def _below(value: ir.Value, bound: float, ranges: Ranges) -> bool:
    seen = ranges.get(str(value.name))
    return bound == np.inf or (seen is not None and float(seen.max(initial=0.0)) < bound)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _tied(model: ir.Model, at: Mapping[ir.Node, list[Touch]]) -> Iterator[list[Place]]:
    """Yield the places that belong together, sets and places in graph order."""
    beside: dict[Place, list[Place]] = defaultdict(list)
    for node in model.graph:
        for touch in at[node]:
            for place in touch.places:
                beside[place] += touch.places
    order = {value: number for number, value in enumerate(_values(model))}
    seen: set[Place] = set()
    for start in beside:
        reached, pending = set[Place](), [start] if start not in seen else []
        while pending:
            place = pending.pop()
            if place not in reached:
                reached.add(place)
                pending += beside[place]
        seen |= reached
        if reached:
            yield sorted(reached, key=lambda place: (order[place[0]], place[1]))


def _takes(node: ir.Node | None, place: Place, at: Mapping[ir.Node, list[Touch]]) -> bool:
    """Whether a node lets the factors of a place through, or writes or reads them."""
    return node is not None and any(place in touch.places for touch in at.get(node, ()))


def _whole(places: list[Place], at: Mapping[ir.Node, list[Touch]]) -> list[ChannelSet]:
    """Return the one set of these places; none if it is broken or a tensor has two of them."""
    heads = [place for place in places if not _takes(place[0].producer(), place, at)]
    read = all(
        not value.is_graph_output() and all(_takes(n, (value, axis), at) for n in value.consumers())
        for value, axis in places
    )
    single = len({value for value, _ in places}) == len(places)
    if not read or not single or heads not in ([], places[:1]):
        return []
    while heads and _passes_on(places, at):
        heads, places = places[1:2], places[1:]
    nodes = dict.fromkeys(
        node for value, _ in places for node in (value.producer(), *value.consumers()) if node
    )
    met = [(n, t) for n in nodes for t in at.get(n, ()) if set(places).issuperset(t.places)]
    one = ChannelSet(
        tensors={str(value.name): axis for value, axis in places},
        channels=size(*places[0]) or 0,
        writers=tuple(end for _, touch in met for end in touch.writers),
        readers=tuple(end for _, touch in met for end in touch.readers),
        behind=tuple(str(node.name) for value, _ in heads for node in value.consumers()),
        clips=tuple(str(n.name) for n, _ in met if upper_bound(n) not in (None, np.inf)),
        normalized=any(t.writers and n.op_type in NORMALIZATIONS for n, t in met),
    )
    return [one]


def _passes_on(places: list[Place], at: Mapping[ir.Node, list[Touch]]) -> bool:
    """Whether the head's one reader only passes factors on: it may be the end of a GELU."""
    reader = only_reader(places[0][0])
    return reader is not None and Touch(tuple(places[:2])) in at.get(reader, ())


def _broken(places: list[Place], at: Mapping[ir.Node, list[Touch]]) -> Iterator[ChannelSet]:
    """Yield a set of its own for each tensor that weighted layers read."""
    for value, axis in places:
        weighted = [node for node in value.consumers() if node.op_type in WEIGHTED]
        touched = [t for n in weighted for t in at.get(n, ()) if t.places == ((value, axis),)]
        readers = tuple(end for touch in touched for end in touch.readers)
        behind = tuple(dict.fromkeys(end.node for end in readers))
        yield ChannelSet({str(value.name): axis}, size(value, axis) or 0, (), readers, behind)
