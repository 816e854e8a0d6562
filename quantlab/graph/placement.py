"""Deciding which tensors and weights are quantized: a policy for each family of engines."""

from collections.abc import Callable

import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.policy_onnxruntime import place_onnxruntime
from quantlab.graph.policy_tensorrt import RULES, place_tensorrt
from quantlab.graph.sites import Activation, Edge, Placement, Weight
from quantlab.graph.view import WEIGHTED
from quantlab.records import Decision
from quantlab.registry import nearest

__all__ = ["POLICIES", "RULES", "Activation", "Edge", "Placement", "Weight", "place"]

NAMED = 3
"""Nodes that an error names; the rest are counted."""

POLICIES: dict[str, Callable[[ir.Model], Placement]] = {
    "tensorrt": place_tensorrt,
    "onnxruntime": place_onnxruntime,
}


def place(model: ir.Model, policy: str = "tensorrt") -> Placement:
    """Decide what of a prepared model is quantized.

    Args:
        model: prepared; stays as it is.
        policy: name in POLICIES.

    Raises:
        ModelError: no such policy, or nothing is quantizable; the message lists why.
    """
    if policy not in POLICIES:
        raise ModelError(f"unknown placement policy {policy!r}; {nearest(policy, list(POLICIES))}")
    placement = POLICIES[policy](model)
    if not placement.weights:
        raise ModelError(f"no quantizable layer: {_why_not(placement.decisions)}")
    return placement


def _why_not(decisions: tuple[Decision, ...]) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for decision in decisions:
        if decision.op in WEIGHTED:
            groups.setdefault((decision.op, decision.reason), []).append(decision.node)
    if not groups:
        return "the model has no Conv, ConvTranspose, Gemm or MatMul"
    parts = []
    for (op, reason), nodes in groups.items():
        more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
        parts.append(f"{len(nodes)} {op} ({', '.join(nodes[:NAMED])}{more}): {reason}")
    return "; ".join(parts)
