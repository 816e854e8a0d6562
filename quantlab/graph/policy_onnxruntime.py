"""Where ONNX Runtime's CPU provider wants Q/DQ, as a table.

Its integer kernels are formed from a node whose inputs all come from DequantizeLinear and whose
output goes to QuantizeLinear alone, so outputs are quantized too, behind a Relu or Clip that the
quantization swallows.  Matrix products also have a form that gives float32.  The fast kernels
take uint8 activations and int8 weights; the bias is quantized by ONNX Runtime itself.

Source: onnxruntime/core/optimizer/qdq_transformer/selectors_actions (node group selectors).
"""

from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

from quantlab.graph.sites import Edge, Groups, Placement, Weight, build, inside_subgraphs
from quantlab.graph.view import CLAMPS, STANDARD, attribute_int, constant, only_reader, rank
from quantlab.records import Decision


class Needs(Enum):
    """What a node must have to be quantized."""

    WEIGHTS = "constant float32 weights"
    INTEGERS = "inputs that are all quantized"


@dataclass(frozen=True, slots=True)
class Row:
    """What the policy does with an operator.

    Attributes:
        needs: when a node of this type is quantized.
        one_scale: whether its input and output must be on the same grid.
        float_output: whether its kernel gives float32, so that the output is not quantized.
    """

    needs: Needs
    one_scale: bool = False
    float_output: bool = False


TABLE: dict[str, Row] = {
    "Conv": Row(Needs.WEIGHTS),
    "Gemm": Row(Needs.WEIGHTS),
    "MatMul": Row(Needs.WEIGHTS, float_output=True),
    "Add": Row(Needs.INTEGERS),
    "Concat": Row(Needs.INTEGERS),
    "AveragePool": Row(Needs.INTEGERS),
    "GlobalAveragePool": Row(Needs.INTEGERS),
    "MaxPool": Row(Needs.INTEGERS, one_scale=True),
    "Reshape": Row(Needs.INTEGERS, one_scale=True),
    "Flatten": Row(Needs.INTEGERS, one_scale=True),
    "Transpose": Row(Needs.INTEGERS, one_scale=True),
    "Squeeze": Row(Needs.INTEGERS, one_scale=True),
    "Unsqueeze": Row(Needs.INTEGERS, one_scale=True),
}

DATA_INPUTS = {"Add": 2}
"""Inputs that carry activations, where it is not the first alone; Concat: all."""


def place_onnxruntime(model: ir.Model) -> Placement:
    """Place by the table; the activations are UINT8."""
    edges: dict[ir.Value, list[Edge]] = {}
    weights: list[Weight] = []
    decisions: list[Decision] = []
    ties = Groups()
    for node in model.graph:
        row = TABLE.get(node.op_type) if node.domain in STANDARD else None
        if row is None:
            continue
        refusal = _refusal(node, row, edges)
        decisions.append(_decision(node, row, refusal))
        if refusal:
            continue
        data = _data(node)
        if row.needs is Needs.WEIGHTS:
            weights.append(_weight(node))
            data = data[:1]
        for value in data:
            _read(edges, value, node)
        if not row.float_output:
            output = _clamped(node.outputs[0])
            _read_all(edges, output, node)
            if row.one_scale:
                ties.join(data[0], output)
    decisions.extend(inside_subgraphs(model, {"Conv", "Gemm", "MatMul"}))
    return build(model, edges, weights, decisions, ties)


def _refusal(node: ir.Node, row: Row, edges: dict[ir.Value, list[Edge]]) -> str:
    """Return why a node is not quantized, "" if it is."""
    if row.needs is Needs.WEIGHTS:
        weight = node.inputs[1]
        if not constant(weight) or weight is None or weight.dtype != ir.DataType.FLOAT:
            return "it has no constant float32 weights"
        if node.op_type != "Conv" and rank(weight) != 2:
            return "its weights are no matrix"
    elif not all(value in edges for value in _data(node)):
        return "not all of its inputs are quantized"
    if not row.float_output and _clamped(node.outputs[0]).is_graph_output():
        return "its output is an output of the model, which stays float32"
    return ""


def _decision(node: ir.Node, row: Row, refusal: str) -> Decision:
    reason = refusal or f"it has {row.needs.value}"
    rule = f"onnxruntime-{row.needs.name.lower()}"
    return Decision(str(node.name), node.op_type, not refusal, rule, reason)


def _data(node: ir.Node) -> list[ir.Value]:
    count = len(node.inputs) if node.op_type == "Concat" else DATA_INPUTS.get(node.op_type, 1)
    return [value for value in node.inputs[:count] if value is not None]


def _weight(node: ir.Node) -> Weight:
    weight = node.inputs[1]
    axis = 0 if node.op_type == "Conv" or attribute_int(node, "transB", 0) else 1
    return Weight(Edge(str(node.name), 1), str(weight.name) if weight else "", axis)


def _read(edges: dict[ir.Value, list[Edge]], value: ir.Value, node: ir.Node) -> None:
    found = edges.setdefault(value, [])
    for reader, index in value.uses():
        edge = Edge(str(reader.name), index)
        if reader is node and edge not in found:
            found.append(edge)


def _read_all(edges: dict[ir.Value, list[Edge]], value: ir.Value, node: ir.Node) -> None:
    """Quantize a tensor for every reader in the graph of ``node``."""
    edges[value] = [
        Edge(str(reader.name), index)
        for reader, index in value.uses()
        if reader.graph is node.graph
    ]


def _clamped(value: ir.Value) -> ir.Value:
    """Return the tensor behind the Relu or Clip that quantizing it would swallow."""
    reader = only_reader(value)
    if reader is not None and reader.op_type in CLAMPS and reader.inputs[0] is value:
        return reader.outputs[0]
    return value
