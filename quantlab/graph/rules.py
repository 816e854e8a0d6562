"""What a placement rule is, and what a table of rules says of the nodes of a model.

The first rule of a table that speaks for a node decides.  Rules may ask what becomes of other
nodes; a table answers each question once, so that chains of questions stay short.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from quantlab.graph.view import STANDARD

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


class Known(Protocol):
    """What a rule may ask about other nodes than its own."""

    def quantized(self, node: ir.Node) -> bool:
        """Whether the table quantizes a node."""
        ...

    def reads_integers(self, node: ir.Node, index: int) -> bool:
        """Whether a node reads one of its inputs through Q/DQ."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table.

    Attributes:
        name: what decisions and reports call it.
        reason: why, in a sentence that can follow "because".
        source: who says so.
        decide: what the rule makes of a node, None if it does not speak for it.
    """

    name: str
    reason: str
    source: str
    decide: Callable[[ir.Node, Known], Choice | None]


class Answers:
    """What a table says of nodes, found out when it is first asked."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._found: dict[ir.Node, tuple[Rule, Choice] | None] = {}

    def find(self, node: ir.Node) -> tuple[Rule, Choice] | None:
        """Return the first rule that speaks for ``node`` and what it says."""
        if node not in self._found:
            self._found[node] = self._ask(node)
        return self._found[node]

    def quantized(self, node: ir.Node) -> bool:
        """Whether the table quantizes ``node``."""
        found = self.find(node)
        return found is not None and found[1] != FLOAT

    def reads_integers(self, node: ir.Node, index: int) -> bool:
        """Whether ``node`` reads input ``index`` through Q/DQ."""
        found = self.find(node)
        return found is not None and index in found[1].activations

    def _ask(self, node: ir.Node) -> tuple[Rule, Choice] | None:
        if node.domain not in STANDARD:
            return None
        for rule in self._rules:
            choice = rule.decide(node, self)
            if choice is not None:
                return rule, choice
        return None
