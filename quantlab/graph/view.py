"""Small questions about nodes and tensors that several passes ask."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

STANDARD = ("", "ai.onnx")
"""Names of the domain of the standard operators."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
WEIGHTED = CONVOLUTIONS | PRODUCTS
"""Operators that do the arithmetic that INT8 is about."""

CLAMPS = frozenset({"Relu", "Clip"})
"""Activations that quantizing their output swallows."""

UNARY = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("Tanh", "Softplus", "Identity", "Neg", "Abs"),
    }
)
"""Element-wise activations that engines fuse into the layer before."""

BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
"""Element-wise operations that are fused where one side is constant."""

MOVING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
"""Operators that only move elements: input 0 and output hold the same values."""

SAME_SCALE = MOVING | {"MaxPool"}
"""Operators that commute with Q/DQ: what comes out is on the input's grid."""


MATRIX = 2
"""Axes of weights that are a matrix, not a stack or a vector; those of a convolution are more, by
those of the image."""

IMAGE_RANK = 4
PIXELS = (2, 3)
"""Axes of an image tensor (samples, channels, height, width) that a global pool averages."""


def constant(value: ir.Value | None) -> bool:
    """Whether a tensor is an initializer with a value."""
    return value is not None and value.is_initializer() and value.const_value is not None


def graph_input(value: ir.Value | None) -> bool:
    """Whether a tensor is fed by the caller."""
    return value is not None and value.is_graph_input()


def rank(value: ir.Value | None) -> int | None:
    """Number of axes, None if unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute or its default."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute or its default."""
    found = node.attributes.get(name)
    return default if found is None else found.as_float()


def factor(node: ir.Node) -> float:
    """Return what a layer multiplies its sums by: ``alpha`` of a Gemm, else 1."""
    return attribute_float(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0


def upper_bound(node: ir.Node) -> float | None:
    """Return the upper bound of a Clip from 0, infinite for none; None if it is no such node."""
    if node.op_type != "Clip":
        return None
    low, high = _bound(node, "min", 1, -np.inf), _bound(node, "max", 2, np.inf)
    return high if low == 0 and high is not None else None


def _bound(node: ir.Node, name: str, slot: int, default: float) -> float | None:
    if name in node.attributes:
        return node.attributes[name].as_float()
    given = node.inputs[slot] if slot < len(node.inputs) else None
    if given is None:
        return default
    return None if given.const_value is None else float(given.const_value.numpy().reshape(-1)[0])


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a tensor; None if several do or it is a graph output."""
    nodes = value.consumers()
    return nodes[0] if len(nodes) == 1 and not value.is_graph_output() else None


def sole_input(node: ir.Node) -> ir.Value | None:
    """Return the one computed input of an element-wise node, None if it is something else."""
    if node.op_type not in UNARY | BINARY:
        return None
    computed = [value for value in node.inputs if value is not None and not constant(value)]
    return computed[0] if len(computed) == 1 else None


def is_average(node: ir.Node) -> bool:
    """Whether a node is an average pool, also one written as ReduceMean over the pixels."""
    if node.op_type == "ReduceMean" and rank(node.inputs[0]) == IMAGE_RANK:
        return axes(node) in (PIXELS, (-2, -1))
    return node.op_type in ("AveragePool", "GlobalAveragePool")


def axes(node: ir.Node) -> tuple[int, ...]:
    """Return the axes of a reduction: an attribute up to opset 17, an input from 18 on."""
    if "axes" in node.attributes:
        return tuple(node.attributes["axes"].as_ints())
    given = node.inputs[1] if len(node.inputs) > 1 else None
    return () if given is None or given.const_value is None else tuple(given.const_value.numpy())


def readers(value: ir.Value, wanted: Callable[[ir.Node], bool]) -> list[ir.Node]:
    """Return the nodes for which ``wanted`` holds that read a tensor, also behind SAME_SCALE."""
    found = []
    pending = [value]
    while pending:
        for node in pending.pop().consumers():
            if wanted(node):
                found.append(node)
            elif node.op_type in SAME_SCALE:
                pending.append(node.outputs[0])
    return found
