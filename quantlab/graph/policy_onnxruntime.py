"""Where ONNX Runtime's CPU provider wants Q/DQ, as a table of kernels.

Its integer kernels are formed from a node whose inputs all come from DequantizeLinear and whose
output goes to QuantizeLinear alone, so outputs are quantized too, behind a Relu or Clip that the
quantization swallows.  Matrix products also have a form that gives float32.  The fast kernels
take uint8 activations and int8 weights; ONNX Runtime quantizes the bias itself, but not that of a
Gemm that gives float32.

Source: onnxruntime/core/optimizer/qdq_transformer/selectors_actions (node group selectors), and the
graphs that ONNX Runtime 1.32 makes (tests/graph/test_integer_kernels.py reads them).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from quantlab.graph.moving import moved
from quantlab.graph.pins import forced, pinned
from quantlab.graph.sites import (
    Bias,
    Edge,
    Groups,
    Placement,
    Weight,
    build,
    inside_subgraphs,
)
from quantlab.graph.view import (
    CLAMPS,
    STANDARD,
    attribute_float,
    attribute_int,
    constant,
    only_reader,
    rank,
)
from quantlab.records import Decision

SOURCE = "ONNX Runtime 1.32, qdq_transformer"


@dataclass(frozen=True, slots=True)
class KernelRule:
    """Why a node has an integer kernel, or has none.

    Attributes:
        name: what decisions and reports call it.
        reason: why, in a sentence that can follow "because".
        source: who says so.
    """

    name: str
    reason: str
    source: str = SOURCE


WEIGHTS = KernelRule(
    "kernel-weights", "an integer kernel of UINT8 activations and constant INT8 weights"
)
INTEGERS = KernelRule("kernel-integers", "an integer kernel, and all of its inputs are quantized")
MOVES = KernelRule(
    "kernel-moves", "it only moves elements, and does so in integers where its input is quantized"
)

KERNELS: dict[str, KernelRule] = {
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), WEIGHTS),
    **dict.fromkeys(
        ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"),
        INTEGERS,
    ),
    **dict.fromkeys(("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"), MOVES),
    **dict.fromkeys(("Split", "Slice", "Gather", "DepthToSpace", "Resize"), MOVES),
}
"""Operators that have an integer kernel, and what it needs."""

FLOAT_OUTPUT = frozenset({"MatMul"})
"""Operators whose integer kernel gives float32, so that the output is not quantized."""

BIAS = 2
"""Input of a Gemm that is added to the product."""

DATA_INPUTS = {"Add": 2, "Mul": 2}
"""Inputs that carry activations, where it is not the first alone; Concat: all."""


def _pinned(node: ir.Node, _: "Site") -> bool:
    return pinned(node)


def _computed_weights(node: ir.Node, site: "Site") -> bool:
    weight = node.inputs[1] if site.needs_weights else None
    known = constant(weight) and weight is not None and weight.dtype == ir.DataType.FLOAT
    return site.needs_weights and not known


def _no_matrix(node: ir.Node, site: "Site") -> bool:
    return site.needs_weights and node.op_type != "Conv" and rank(node.inputs[1]) != 2


def _interpolates(node: ir.Node, _: "Site") -> bool:
    return node.op_type in ("Resize", "Gather") and not moved(node)


def _float_inputs(_: ir.Node, site: "Site") -> bool:
    return not site.needs_weights and not all(value in site.quantized for value in site.data)


def _model_output(node: ir.Node, site: "Site") -> bool:
    if node.op_type == "Gemm" and not site.outputs:
        return False
    return not forced(node) and any(value.is_graph_output() for value in site.outputs)


REFUSALS: tuple[tuple[KernelRule, Callable[[ir.Node, "Site"], bool]], ...] = (
    (KernelRule("pinned", "the config keeps it in floating point", "the config's pins"), _pinned),
    (KernelRule("float-weights", "it has no constant float32 weights"), _computed_weights),
    (KernelRule("no-matrix", "its weights are no matrix"), _no_matrix),
    (KernelRule("no-move", "it interpolates, or looks up constants"), _interpolates),
    (KernelRule("float-inputs", "not all of its inputs are quantized"), _float_inputs),
    (
        KernelRule("model-output", "its output is an output of the model, which stays float32"),
        _model_output,
    ),
)
"""Why a node of KERNELS is not quantized; the first that holds is told."""

RULES: tuple[KernelRule, ...] = (WEIGHTS, INTEGERS, MOVES, *(rule for rule, _ in REFUSALS))


@dataclass(frozen=True, slots=True)
class Site:
    """A node as its kernel would have it.

    Attributes:
        needs_weights: whether the kernel has constant weights.
        data: the activations that it reads.
        outputs: what is to be quantized of what it gives, behind a Relu or Clip.
        quantized: the tensors that are quantized so far.
    """

    needs_weights: bool
    data: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    quantized: dict[ir.Value, list[Edge]]


def place_onnxruntime(model: ir.Model) -> Placement:
    """Place by the table; the activations are UINT8."""
    edges: dict[ir.Value, list[Edge]] = {}
    weights: list[Weight] = []
    decisions: list[Decision] = []
    biases: list[Bias] = []
    ties = Groups()
    for node in model.graph:
        kernel = KERNELS.get(node.op_type) if node.domain in STANDARD else None
        if kernel is None:
            continue
        site = _site(node, kernel, edges)
        refusal = next((rule for rule, holds in REFUSALS if holds(node, site)), None)
        rule = refusal or kernel
        decisions.append(
            Decision(str(node.name), node.op_type, refusal is None, rule.name, rule.reason)
        )
        if refusal:
            continue
        if site.needs_weights:
            weights.append(_weight(node))
        if node.op_type == "Gemm" and not site.outputs:
            biases.append(_bias(node))
        for value in site.data:
            _read(edges, value, node)
        for value in site.outputs:
            _read_all(edges, value, node)
            if kernel is MOVES:
                ties.join(site.data[0], value)
    decisions.extend(inside_subgraphs(model, {"Conv", "Gemm", "MatMul"}))
    return replace(build(model, edges, weights, decisions, ties), biases=tuple(biases))


def _site(node: ir.Node, kernel: KernelRule, edges: dict[ir.Value, list[Edge]]) -> Site:
    count = len(node.inputs) if node.op_type == "Concat" else DATA_INPUTS.get(node.op_type, 1)
    floats = node.op_type in FLOAT_OUTPUT or (node.op_type == "Gemm" and _gives_floats(node))
    given = () if floats else tuple(node.outputs)
    return Site(
        needs_weights=kernel is WEIGHTS,
        data=tuple(value for value in node.inputs[:count] if value is not None),
        outputs=tuple(_clamped(value) for value in given),
        quantized=edges,
    )


def _gives_floats(node: ir.Node) -> bool:
    """Whether a Gemm is an output of the model and its bias can be INT32."""
    plain = all(attribute_float(node, name, 1.0) == 1 for name in ("alpha", "beta"))
    bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    fits = bias is None or (constant(bias) and rank(bias) == 1 and _columns(node) == bias.shape)
    return node.outputs[0].is_graph_output() and plain and fits


def _columns(node: ir.Node) -> ir.Shape | None:
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 2:
        return None
    return ir.Shape((weight.shape[0 if attribute_int(node, "transB", 0) else 1],))


def _bias(node: ir.Node) -> Bias:
    bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    return Bias(Edge(str(node.name), BIAS), "" if bias is None else str(bias.name))


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
