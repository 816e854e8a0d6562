"""Rules for what the config says of single nodes, and for what no policy can quantize."""

import onnx_ir as ir

from quantlab.graph.moving import COPIES, moved
from quantlab.graph.pins import forced, pinned
from quantlab.graph.residual import identity_branch
from quantlab.graph.rules import FLOAT, Choice, Known, Rule
from quantlab.graph.rules_layers import COMPUTED_WEIGHTS, in_integers
from quantlab.graph.view import WEIGHTED, constant, is_average

OTHERS = COPIES | frozenset({"Mul", "MaxPool"})
"""What ``forced`` may speak of beside layers, sums and average pools."""


def _pinned(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if pinned(node) else None


def _not_float32(node: ir.Node, _: Known) -> Choice | None:
    ordinary = node.op_type in WEIGHTED | {"Add"} or is_average(node)
    if not ordinary and not (forced(node) and node.op_type in OTHERS):
        return None
    one = is_average(node) or node.op_type in COPIES - {"Concat"}
    known = (
        v.dtype for v in node.inputs[: 1 if one else 2] if v is not None and v.dtype is not None
    )
    return FLOAT if any(dtype != ir.DataType.FLOAT for dtype in known) else None


def _forced(node: ir.Node, known: Known) -> Choice | None:
    if not forced(node):
        return None
    if node.op_type in WEIGHTED:
        return in_integers(node)
    branch = identity_branch(node, known) if node.op_type == "Add" else None
    return Choice((branch,) if branch is not None else _data(node))


def _data(node: ir.Node) -> tuple[int, ...]:
    """Return the inputs of a sum, product, pool or copy that are computed."""
    if node.op_type in ("Add", "Mul"):
        inputs: tuple[int, ...] = (0, 1)
    else:
        inputs = moved(node) or (0,)
    return tuple(index for index in inputs if not constant(node.inputs[index]))


CONFIG: tuple[Rule, ...] = (
    Rule("pinned", "the config keeps it in floating point", "the config's pins", _pinned),
    Rule(
        "not-float32",
        "only float32 tensors are quantized",
        "ONNX QuantizeLinear; other types are indices, masks or kept precise on purpose",
        _not_float32,
    ),
    COMPUTED_WEIGHTS,
    Rule("forced", "the config wants it in INT8", "the config's layers", _forced),
)
