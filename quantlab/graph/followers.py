"""What becomes of the nodes that have no Q/DQ of their own: they follow their neighbours.

Placement decides about the work that INT8 is about and about what joins it.  Every other node is
fused into a layer, moves what it is given, or stays in floating point; here each is told which.
A follower is called quantized if it works on integers: inside an INT8 kernel, or moving them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from quantlab.graph.attention import in_attention, scores_between
from quantlab.graph.elementwise import ELEMENT_WISE, function_of
from quantlab.graph.moving import commutes, moved
from quantlab.graph.normalization import normalizes, parts
from quantlab.graph.rules import GUIDE, POLICY
from quantlab.graph.sites import Placement
from quantlab.graph.view import STANDARD, constant
from quantlab.records import Decision

FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE, None}
)


class Around:
    """What a model's placement says of the neighbourhood of a node."""

    def __init__(self, model: ir.Model, placement: Placement) -> None:
        self._quantized = {d.node for d in placement.decisions if d.quantized}
        self._tensors = set(placement.tensors)
        self._fuses: dict[ir.Node, bool] = {}
        self.normalizing = frozenset(
            part for node in model.graph if normalizes(node) for part in parts(node)
        )
        products = (n for n in model.graph if n.op_type == "MatMul" and in_attention(n))
        self.scoring = frozenset(part for node in products for part in scores_between(node))

    def quantized(self, node: ir.Node | None) -> bool:
        """Whether placement quantized a node."""
        return node is not None and str(node.name) in self._quantized

    def on_grid(self, value: ir.Value | None) -> bool:
        """Whether a tensor, or one that its elements come from, is quantized."""
        pending, seen = [value], {value}
        while pending:
            current = pending.pop()
            if current is not None and str(current.name) in self._tensors:
                return True
            node = None if current is None else current.producer()
            before = [] if node is None else [node.inputs[index] for index in commutes(node)]
            pending += [v for v in before if v not in seen]
            seen.update(before)
        return False

    def fuses(self, node: ir.Node) -> bool:
        """Whether a node belongs to an element-wise function of what a quantized layer gives."""
        passed: list[ir.Node] = []
        found, current = False, node
        while current not in self._fuses:
            passed.append(current)
            function = function_of(current.outputs[0])
            before = None if function is None else function.source.producer()
            found = self.quantized(before)
            if found or before is None:
                break
            current = before
        found = self._fuses.get(current, found)
        self._fuses.update(dict.fromkeys(passed, found))
        return found


@dataclass(frozen=True, slots=True)
class FollowerRule:
    """One row of the table.

    Attributes:
        name: what ``explain`` calls it.
        reason: why, in a sentence that can follow "because".
        source: who says so.
        quantized: whether the node works on integers.
        applies: whether the rule speaks for a node.
    """

    name: str
    reason: str
    source: str
    quantized: bool
    applies: Callable[[ir.Node, Around], bool]


def follow(model: ir.Model, placement: Placement) -> tuple[Decision, ...]:
    """Return what becomes of the nodes that ``placement`` does not decide about, in graph order."""
    decided = {decision.node for decision in placement.decisions}
    around = Around(model, placement)
    found = []
    for node in model.graph:
        if str(node.name) not in decided:
            rule = next(rule for rule in FOLLOWERS if rule.applies(node, around))
            found.append(
                Decision(str(node.name), node.op_type, rule.quantized, rule.name, rule.reason)
            )
    return tuple(found)


def _other_domain(node: ir.Node, _: Around) -> bool:
    return node.domain not in STANDARD


def _holds_graphs(node: ir.Node, _: Around) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())


def _no_floats(node: ir.Node, _: Around) -> bool:
    return all(value.dtype not in FLOATS for value in node.outputs)


def _normalization(node: ir.Node, around: Around) -> bool:
    return node in around.normalizing


def _softmax(node: ir.Node, _: Around) -> bool:
    return node.op_type in ("Softmax", "LogSoftmax")


def _fused(node: ir.Node, around: Around) -> bool:
    return around.fuses(node)


def _moves_integers(node: ir.Node, around: Around) -> bool:
    return bool(moved(node)) and any(
        map(around.on_grid, (*(node.inputs[i] for i in moved(node)), *node.outputs))
    )


def _moves_floats(node: ir.Node, _: Around) -> bool:
    return bool(moved(node))


def _scores(node: ir.Node, around: Around) -> bool:
    return node in around.scoring


def _constants(node: ir.Node, _: Around) -> bool:
    computed = [value for value in node.inputs if value is not None and not constant(value)]
    return node.op_type in ("BatchNormalization", "Cast") or (
        node.op_type in ELEMENT_WISE and len(computed) == 1
    )


def _element_wise(node: ir.Node, _: Around) -> bool:
    return node.op_type in ELEMENT_WISE


def _reduces(node: ir.Node, _: Around) -> bool:
    return node.op_type.startswith("Reduce") or node.op_type in ("ArgMax", "ArgMin", "CumSum")


def _any(_: ir.Node, __: Around) -> bool:
    return True


FOLLOWERS: tuple[FollowerRule, ...] = (
    FollowerRule(
        "other-domain",
        "it is no standard operator: what it computes is not known here",
        "ONNX, operator domains",
        quantized=False,
        applies=_other_domain,
    ),
    FollowerRule(
        "body",
        "bodies of If, Loop and Scan are not quantized",
        GUIDE,
        quantized=False,
        applies=_holds_graphs,
    ),
    FollowerRule(
        "not-floating",
        "it computes shapes, indices or masks",
        "ONNX QuantizeLinear takes floating-point tensors",
        quantized=False,
        applies=_no_floats,
    ),
    FollowerRule(
        "normalization",
        "it divides by statistics of its input, which INT8 has too few steps for",
        POLICY,
        quantized=False,
        applies=_normalization,
    ),
    FollowerRule(
        "softmax",
        "exponentials span more than 127 steps",
        POLICY,
        quantized=False,
        applies=_softmax,
    ),
    FollowerRule(
        "fused-activation",
        "an element-wise function behind an INT8 layer is computed inside of its kernel",
        GUIDE,
        quantized=True,
        applies=_fused,
    ),
    FollowerRule(
        "moves-integers",
        "it hands on elements that are on a grid before or behind it, so Q/DQ commute with it",
        GUIDE,
        quantized=True,
        applies=_moves_integers,
    ),
    FollowerRule(
        "moves-floats",
        "it hands on elements, and neither what it reads nor what it gives is quantized",
        GUIDE,
        quantized=False,
        applies=_moves_floats,
    ),
    FollowerRule(
        "attention-scores",
        "it scales or masks the scores of an attention, which stays in floating point",
        POLICY,
        quantized=False,
        applies=_scores,
    ),
    FollowerRule(
        "float-function",
        "an element-wise function of one tensor, with no INT8 layer before it to be fused into",
        POLICY,
        quantized=False,
        applies=_constants,
    ),
    FollowerRule(
        "float-arithmetic",
        "element-wise arithmetic on two tensors: fused into its neighbours, in floating point",
        POLICY,
        quantized=False,
        applies=_element_wise,
    ),
    FollowerRule(
        "reduction",
        "it gathers many values into one, which needs more than 8 bits",
        POLICY,
        quantized=False,
        applies=_reduces,
    ),
    FollowerRule(
        "no-rule",
        "no rule of placement speaks for it, so it stays in floating point",
        "quantlab",
        quantized=False,
        applies=_any,
    ),
)
"""In order; the last speaks for every node."""
