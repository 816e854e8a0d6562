"""Placing by a table of rules."""

from collections.abc import Mapping, Sequence, Set

import onnx_ir as ir

from quantlab.graph.moving import commutes, moved
from quantlab.graph.rules import FLOAT, Answers, Rule
from quantlab.graph.sites import (
    Edge,
    Placement,
    Weight,
    build,
    inside_subgraphs,
    same_scale,
)
from quantlab.graph.view import SAME_SCALE, WEIGHTED, constant
from quantlab.records import Decision


def place_by(
    rules: Sequence[Rule], model: ir.Model, *, carried_by: Set[str] = frozenset()
) -> Placement:
    """Place by a table of rules.

    Args:
        rules: asked in order.
        model: prepared; stays as it is.
        carried_by: operators that carry a grid: a tensor whose elements they move, from tensors
            that are quantized on its grid, has no pair of its own.
    """
    answers = Answers(tuple(rules))
    edges: dict[ir.Value, list[Edge]] = {}
    weights: list[Weight] = []
    decisions: list[Decision] = []
    for node in reversed(model.graph):  # rules ask those that read a node
        answers.find(node)
    for node in model.graph:
        found = answers.find(node)
        if found is None:
            continue
        rule, choice = found
        name = str(node.name)
        decisions.append(Decision(name, node.op_type, choice != FLOAT, rule.name, rule.reason))
        for index in choice.activations:
            value = node.inputs[index]
            if value is not None:
                edges.setdefault(value, []).append(Edge(name, index))
        if choice.weight is not None:
            index, axis = choice.weight
            weight = node.inputs[index]
            if weight is not None:
                weights.append(Weight(Edge(name, index), str(weight.name), axis))
    for value in _carried(model, edges, carried_by):
        edges.pop(value, None)
    decisions.extend(inside_subgraphs(model, WEIGHTED))
    ties = same_scale(model, lambda node: bool(moved(node)) and answers.quantized(node))
    return build(model, edges, weights, decisions, ties)


def _carried(
    model: ir.Model, edges: Mapping[ir.Value, Sequence[Edge]], by: Set[str]
) -> set[ir.Value]:
    """Return the tensors whose elements are on their grid already, moved or chosen from others."""
    read = {edge for found in edges.values() for edge in found}
    ready: set[ir.Value | None] = set()
    for node in model.graph:
        moves = commutes(node) if node.op_type in by else ()
        inputs = [i for i in moves if not constant(node.inputs[i])]
        tied = node.op_type in SAME_SCALE
        on_grid = (
            Edge(str(node.name), i) in read or (tied and node.inputs[i] in ready) for i in inputs
        )
        if inputs and all(on_grid):
            ready.update(node.outputs)
    return {value for value in ready if value is not None}
