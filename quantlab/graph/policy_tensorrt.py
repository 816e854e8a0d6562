"""Where TensorRT wants Q/DQ, as a table of rules.

The first rule of ``RULES`` that speaks for a node decides.  Quantized are the inputs of operators
that gain from INT8, never their outputs: the quantization of an output belongs to whoever reads it
(NVIDIA's recommended placement: "quantize all inputs of weighted operations", "do not quantize
the outputs of weighted operations", "do not simulate batch-normalization and ReLU fusions").

Limits: these are the rules for convolutional networks and for the projections of transformers;
attention's inner products stay in floating point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quantlab.graph.residual import identity_branch
from quantlab.graph.sites import (
    Edge,
    Placement,
    Weight,
    build,
    inside_subgraphs,
    same_scale,
)
from quantlab.graph.view import (
    CONVOLUTIONS,
    PRODUCTS,
    STANDARD,
    WEIGHTED,
    attribute_int,
    constant,
    graph_input,
    is_average,
    rank,
    readers,
    sole_input,
)
from quantlab.records import Decision

SMALL = 16
"""Fewer channels, rows or columns than this do not fill a Tensor Core tile of INT8."""

ALIGNED = 8
"""Channel counts divisible by this have INT8 kernels where the other side is small."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

GUIDE = "TensorRT developer guide, Explicit Quantization, Q/DQ Layer-Placement Recommendations"
POLICY = "NVIDIA Model-Optimizer, ONNX INT8 policy"


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a node is quantized; nothing if both are empty.

    Attributes:
        activations: indices of the inputs that go through Q/DQ.
        weight: index of the weights among the inputs and their channel axis, None for per tensor.
    """

    activations: tuple[int, ...] = ()
    weight: tuple[int, int | None] | None = None


FLOAT = Choice()
"""The node stays in floating point."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        name: what decisions and reports call it.
        reason: why, in a sentence that can follow "because".
        source: who says so.
        decide: what the rule makes of a node, None if it does not speak for it.
    """

    name: str
    reason: str
    source: str
    decide: Callable[[ir.Node], Choice | None]


def place_tensorrt(model: ir.Model) -> Placement:
    """Place by the table; the activations are INT8, symmetric, zero point 0."""
    edges: dict[ir.Value, list[Edge]] = {}
    weights: list[Weight] = []
    decisions: list[Decision] = []
    for node in model.graph:
        found = rule_for(node)
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
    decisions.extend(inside_subgraphs(model, WEIGHTED))
    return build(model, edges, weights, decisions, same_scale(model))


def rule_for(node: ir.Node) -> tuple[Rule, Choice] | None:
    """Return the first rule that speaks for ``node`` and what it says."""
    if node.domain not in STANDARD:
        return None
    for rule in RULES:
        choice = rule.decide(node)
        if choice is not None:
            return rule, choice
    return None


def is_quantized(node: ir.Node) -> bool:
    """Whether the table quantizes ``node``."""
    found = rule_for(node)
    return found is not None and found[1] != FLOAT


def _not_float32(node: ir.Node) -> Choice | None:
    if node.op_type not in WEIGHTED | {"Add"} and not is_average(node):
        return None
    known = (
        v.dtype
        for v in node.inputs[: 1 if is_average(node) else 2]
        if v is not None and v.dtype is not None
    )
    return FLOAT if any(dtype != ir.DataType.FLOAT for dtype in known) else None


def _computed_weights(node: ir.Node) -> Choice | None:
    if node.op_type in CONVOLUTIONS or node.op_type == "Gemm":
        return None if constant(node.inputs[1]) else FLOAT
    return None


def _small_channels(node: ir.Node) -> Choice | None:
    if node.op_type not in CONVOLUTIONS:
        return None
    shape = _weight(node).numpy().shape
    groups = attribute_int(node, "group", 1)
    if node.op_type == "Conv":
        made, read = shape[0], shape[1]
    else:
        made, read = shape[1] * groups, shape[0] // groups
    if made >= SMALL and read >= SMALL:
        return None
    kernel = shape[2:]
    if groups > 1:
        fits = made % ALIGNED == 0 and min(kernel, default=1) >= 3
    else:
        aligned = made % ALIGNED == 0 or read % ALIGNED == 0
        wide = max(made, read) >= SMALL or _first_layer(node)
        fits = aligned and wide and len(set(kernel)) <= 1
    return None if fits else FLOAT


def _first_layer(node: ir.Node) -> bool:
    """Whether only element-wise operations lie between a node and the model's input."""
    value = node.inputs[0]
    while value is not None and not graph_input(value):
        before = value.producer()
        value = None if before is None else sole_input(before)
    return value is not None


def _conv(node: ir.Node) -> Choice | None:
    return Choice((0,), (1, 0)) if node.op_type == "Conv" else None


def _conv_transpose(node: ir.Node) -> Choice | None:
    if node.op_type != "ConvTranspose" or attribute_int(node, "group", 1) > 1:
        return None
    return Choice((0,), (1, 1))


def _grouped_conv_transpose(node: ir.Node) -> Choice | None:
    return Choice((0,), (1, None)) if node.op_type == "ConvTranspose" else None


def _dynamic_product(node: ir.Node) -> Choice | None:
    if node.op_type != "MatMul":
        return None
    right = node.inputs[1]
    return None if constant(right) and rank(right) == 2 else FLOAT


def _matrix_vector(node: ir.Node) -> Choice | None:
    if node.op_type not in PRODUCTS:
        return None
    left = node.inputs[0]
    if left is None or left.shape is None or len(left.shape) == 0:
        return None
    if node.op_type == "Gemm" and attribute_int(node, "transA", 0):
        rows = left.shape[1:]
    else:
        rows = left.shape[:-1]
    return FLOAT if all(dim == 1 for dim in rows) else None


def _narrow_product(node: ir.Node) -> Choice | None:
    if node.op_type not in PRODUCTS:
        return None
    return FLOAT if min(_weight(node).numpy().shape) < SMALL else None


def _product(node: ir.Node) -> Choice | None:
    if node.op_type not in PRODUCTS:
        return None
    return Choice((0,), (1, 0 if attribute_int(node, "transB", 0) else 1))


def _constant_add(node: ir.Node) -> Choice | None:
    return FLOAT if node.op_type == "Add" and any(map(constant, node.inputs)) else None


def _residual_add(node: ir.Node) -> Choice | None:
    if node.op_type != "Add":
        return None
    branch = identity_branch(node, is_quantized)
    return None if branch is None else Choice((branch,))


def _float_add(node: ir.Node) -> Choice | None:
    return FLOAT if node.op_type == "Add" else None


def _integer_max(node: ir.Node) -> Choice | None:
    return Choice((0,)) if node.op_type == "MaxPool" and _between_integers(node) else None


def _float_max(node: ir.Node) -> Choice | None:
    return FLOAT if node.op_type == "MaxPool" else None


def _integer_average(node: ir.Node) -> Choice | None:
    if not is_average(node) or not _between_integers(node):
        return None
    others = {reader for reader in _consumers(node.inputs[0]) if reader is not node}
    integer = all(n.op_type in WEIGHTED | {"Add"} and is_quantized(n) for n in others)
    return Choice((0,)) if integer else None


def _consumers(value: ir.Value | None) -> Sequence[ir.Node]:
    return () if value is None else value.consumers()


def _between_integers(node: ir.Node) -> bool:
    return not graph_input(node.inputs[0]) and bool(readers(node.outputs[0], _wants_integers))


def _wants_integers(node: ir.Node) -> bool:
    """Whether a reader is quantized; a MaxPool is if its readers are, and they are asked anyway."""
    return node.op_type != "MaxPool" and is_quantized(node)


def _float_average(node: ir.Node) -> Choice | None:
    return FLOAT if is_average(node) else None


def _concat(node: ir.Node) -> Choice | None:
    return FLOAT if node.op_type == "Concat" else None


def _recurrent(node: ir.Node) -> Choice | None:
    return FLOAT if node.op_type in RECURRENT else None


def _weight(node: ir.Node) -> ir.TensorProtocol:
    value = node.inputs[1]
    if value is None or value.const_value is None:
        raise AssertionError(f"{node.name}: an earlier rule keeps computed weights away")
    return value.const_value


RULES: tuple[Rule, ...] = (
    Rule(
        "not-float32",
        "only float32 tensors are quantized",
        "ONNX QuantizeLinear; other types are indices, masks or kept precise on purpose",
        _not_float32,
    ),
    Rule(
        "computed-weights",
        "its weights are computed at run time, so they have no scale beforehand",
        POLICY,
        _computed_weights,
    ),
    Rule(
        "small-channels",
        "too few channels to fill an INT8 tile: floating point is as fast and more precise",
        POLICY,
        _small_channels,
    ),
    Rule("conv", "INT8 convolution: input per tensor, weights per output channel", GUIDE, _conv),
    Rule(
        "conv-transpose",
        "INT8 deconvolution: input per tensor, weights per output channel",
        GUIDE,
        _conv_transpose,
    ),
    Rule(
        "grouped-conv-transpose",
        "its output channels are spread over groups, so one scale serves all weights",
        "ONNX QuantizeLinear has one axis; ConvTranspose weights are [in, out / groups, ...]",
        _grouped_conv_transpose,
    ),
    Rule(
        "dynamic-product",
        "both factors are computed, as in attention: INT8 loses accuracy there and gains little",
        POLICY,
        _dynamic_product,
    ),
    Rule(
        "matrix-vector",
        "one row times a matrix is bound by memory, not by arithmetic",
        POLICY,
        _matrix_vector,
    ),
    Rule(
        "narrow-product",
        f"a side of the weights is shorter than {SMALL}: too narrow to fill an INT8 tile",
        POLICY,
        _narrow_product,
    ),
    Rule("product", "INT8 matrix product: input per tensor, weights per column", GUIDE, _product),
    Rule("constant-add", "adding a constant is fused into its neighbour", POLICY, _constant_add),
    Rule(
        "residual-add",
        "the Add is fused into the convolution of one branch, so only the other branch is read "
        "as INT8",
        GUIDE,
        _residual_add,
    ),
    Rule("float-add", "no convolution to fuse it into", POLICY, _float_add),
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
        "what it feeds is not quantized, or what it reads is also read in floating point, as in "
        "a squeeze-and-excitation gate",
        GUIDE,
        _float_average,
    ),
    Rule(
        "concat",
        "has no Q/DQ of its own; its quantized inputs and output share one scale",
        POLICY,
        _concat,
    ),
    Rule("recurrent", "recurrent layers have no INT8 kernel", GUIDE, _recurrent),
)
"""In order; a node that no row speaks for is moved or fused, and has no decision."""
