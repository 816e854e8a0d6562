"""Deciding which tensors and weights are quantized: a policy for each family of engines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from quantlab.errors import ConfigError, ModelError
from quantlab.graph import policy_conservative, policy_onnxruntime, policy_openvino
from quantlab.graph.pins import demanded
from quantlab.graph.policy_tensorrt import RULES, place_tensorrt
from quantlab.graph.sites import Activation, Edge, Placement, Weight
from quantlab.graph.view import WEIGHTED
from quantlab.records import Decision
from quantlab.registry import nearest

__all__ = ["POLICIES", "RULES", "Activation", "Edge", "Placement", "Policy", "Weight", "place"]

UNKNOWN = "no rule of the policy speaks for it"
"""Why a node without a decision is not quantized."""

NAMED = 3
"""Nodes that an error names; the rest are counted."""


class Named(Protocol):
    """What every rule says of itself."""

    @property
    def name(self) -> str:
        """What decisions and reports call it."""
        ...

    @property
    def reason(self) -> str:
        """Why, in a sentence that can follow "because"."""
        ...

    @property
    def source(self) -> str:
        """Who says so."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """Where Q/DQ go for a family of engines.

    Attributes:
        place: decides for a model, whether or not anything is quantized.
        rules: what it decides by, in the order in which they are asked.
        unsigned: whether some activations become UINT8, which TensorRT does not take.
        about: whom it is for, in a sentence.
    """

    place: Callable[[ir.Model], Placement]
    rules: Sequence[Named]
    unsigned: bool
    about: str


POLICIES: dict[str, Policy] = {
    "tensorrt": Policy(
        place_tensorrt,
        RULES,
        unsigned=False,
        about="symmetric INT8 where TensorRT fuses it; OpenVINO runs it as it is",
    ),
    "openvino": Policy(
        policy_openvino.place_openvino,
        policy_openvino.RULES,
        unsigned=True,
        about="as tensorrt, but UINT8 where a tensor is never negative, and only what OpenVINO "
        "has INT8 kernels for",
    ),
    "onnxruntime": Policy(
        policy_onnxruntime.place_onnxruntime,
        policy_onnxruntime.RULES,
        unsigned=True,
        about="UINT8 where ONNX Runtime's CPU provider forms integer kernels, outputs included",
    ),
    "conservative": Policy(
        policy_conservative.place_conservative,
        policy_conservative.RULES,
        unsigned=False,
        about="as tensorrt, but first, last and depthwise layers stay in floating point",
    ),
}


def policy_named(name: str) -> Policy:
    """Return a policy of POLICIES.

    Raises:
        ModelError: there is none of this name.
    """
    if name not in POLICIES:
        raise ModelError(f"unknown placement policy {name!r}; {nearest(name, list(POLICIES))}")
    return POLICIES[name]


def place(model: ir.Model, policy: str = "tensorrt") -> Placement:
    """Decide what of a prepared model is quantized.

    Args:
        model: prepared; stays as it is.
        policy: name in POLICIES.

    Raises:
        ModelError: no such policy, or nothing is quantizable; the message lists why.
        ConfigError: the config names a node for INT8 that cannot be.
    """
    placement = policy_named(policy).place(model)
    check_forced(model, placement)
    check_any(model, placement)
    return placement


def check_forced(model: ir.Model, placement: Placement) -> None:
    """Check that what the config calls by name for INT8 is; wider patterns take what can be.

    Raises:
        ConfigError: a node is not; says why.
    """
    decided = {decision.node: decision for decision in placement.decisions}
    for node in model.graph.all_nodes():
        found = decided.get(str(node.name))
        if demanded(node) and (found is None or not found.quantized):
            why = UNKNOWN if found is None else found.reason
            raise ConfigError(
                f"{node.op_type} {node.name!r} cannot be INT8: {why}; leave it out of the config",
                "layers",
            )


def check_any(model: ir.Model, placement: Placement) -> None:
    """Check that a placement quantizes any layer.

    Raises:
        ModelError: none; the message lists why.
    """
    if not any(d.quantized and d.op in WEIGHTED for d in placement.decisions):
        raise ModelError(f"no quantizable layer: {_why_not(model, placement.decisions)}")


def _why_not(model: ir.Model, decisions: tuple[Decision, ...]) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    decided = {decision.node: decision.reason for decision in decisions}
    for node in model.graph.all_nodes():
        if node.op_type in WEIGHTED:
            why = decided.get(str(node.name), UNKNOWN)
            groups.setdefault((node.op_type, why), []).append(str(node.name))
    if not groups:
        return "the model has no Conv, ConvTranspose, Gemm or MatMul"
    parts = []
    for (op, reason), nodes in groups.items():
        more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
        parts.append(f"{len(nodes)} {op} ({', '.join(nodes[:NAMED])}{more}): {reason}")
    return "; ".join(parts) + " ('quantlab explain' lists every node)"
