"""What becomes of each node of a model in INT8, and which rule decided: without samples.

A node is INT8 if it reads through Q/DQ, "fused" if it is computed inside of an INT8 kernel or only
moves integers, and float otherwise.

Units: multiply-accumulates (MACs) a sample; an open axis counts as 1.
Limits: what the policy wants.  What a backend then runs is in the report of a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from quantlab import configfile
from quantlab.engines import ENGINES
from quantlab.graph import model as graph
from quantlab.graph.followers import Around, follow
from quantlab.graph.macs import macs
from quantlab.graph.placement import Placement, check_any, check_forced, policy_named
from quantlab.graph.prepare import prepare
from quantlab.plugs import PLUGS
from quantlab.records import Decision
from quantlab.registry import make
from quantlab.steps.job import marked

Runs = Literal["INT8", "fused", "float"]

CONFIGS = (".yaml", ".yml", ".json", ".toml")
"""Endings of configs; what ends otherwise is a model."""

DEFAULT = "tensorrt"


@dataclass(frozen=True, slots=True)
class Row:
    """A node.

    Attributes:
        node: its name; op: its type.
        runs: as the module's docstring says.
        rule: name of the rule that decided; reason: why, in a sentence.
        macs: its work; None if it is no layer or its shapes are not known.
    """

    node: str
    op: str
    runs: Runs
    rule: str
    reason: str
    macs: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A model under a policy.

    Attributes:
        policy: its name.
        about: whom it is for.
        rows: one a node of the prepared model, in graph order, and then the nodes in the bodies of
            If, Loop and Scan that would be layers.
        tensors: quantized activations.
        weights: quantized weights.
        prepared: the model that was placed.
        placement: of it.
    """

    policy: str
    about: str
    rows: tuple[Row, ...]
    tensors: int
    weights: int
    prepared: ir.Model
    placement: Placement

    def count(self, runs: Runs) -> int:
        """Return how many nodes run so."""
        return sum(row.runs == runs for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers whose work is known."""
        return sum(row.macs or 0 for row in self.rows)

    @property
    def integer_share(self) -> float:
        """Share of the multiply-accumulates that INT8 layers do, 0 to 1."""
        done = sum(row.macs or 0 for row in self.rows if row.runs == "INT8")
        return done / self.macs if self.macs else 0.0

    def check(self) -> None:
        """Check that a run with this model would quantize something, and all that is wanted.

        Raises:
            ModelError: no layer is quantizable; the message lists why.
            ConfigError: the config wants a node in INT8 that cannot be.
        """
        check_forced(self.prepared, self.placement)
        check_any(self.prepared, self.placement)


def explain(source: Path, policy: str | None = None) -> Explanation:
    """Return what becomes of each node.

    Args:
        source: an ONNX model, or a config whose model, policy and layers are taken.
        policy: name in POLICIES, in place of the config's; "tensorrt" for a model.

    Raises:
        ModelError: the model cannot be read or is quantized already, or there is no such policy.
        ConfigError: the config, or a pattern of its layers that names no node.
    """
    if source.suffix.lower() not in CONFIGS:
        return explained(prepare(graph.load(source)).model, policy or DEFAULT)
    config = configfile.load(source, PLUGS)
    backend, base = config.engines.backend, source.resolve().parent
    engine = make("backend", ENGINES, backend, config.engines.parameters, base=base)
    model = marked(prepare(graph.load(config.model)).model, config, engine)
    return explained(model, policy or config.quantization.policy or engine.policy)


def explained(model: ir.Model, policy: str) -> Explanation:
    """Return what becomes of each node of a prepared model.

    Raises:
        ModelError: there is no such policy.
    """
    chosen = policy_named(policy)
    placement = chosen.place(model)
    around = Around(model, placement)
    followers = {decision.node: decision for decision in follow(model, placement)}
    decided = {decision.node: decision for decision in placement.decisions}
    rows = [_row(node, decided.get(str(node.name)), followers, around) for node in model.graph]
    own = {row.node for row in rows}
    rows += [
        Row(d.node, d.op, "float", d.rule, d.reason, None)
        for d in placement.decisions
        if d.node not in own
    ]
    return Explanation(
        policy=policy,
        about=chosen.about,
        rows=tuple(rows),
        tensors=len(placement.activations),
        weights=len({weight.initializer for weight in placement.weights}),
        prepared=model,
        placement=placement,
    )


def _row(
    node: ir.Node, decision: Decision | None, followers: Mapping[str, Decision], around: Around
) -> Row:
    found = decision or followers[str(node.name)]
    runs: Runs = "float"
    if found.quantized:
        runs = "fused" if decision is None else "INT8"
    elif decision is not None and around.fuses(node):
        runs = "fused"  # such as the Add of a bias
    return Row(found.node, found.op, runs, found.rule, found.reason, _macs(node))


def _macs(node: ir.Node) -> int | None:
    """Return the work of a layer, of a product of activations too."""
    left, made = (node.inputs[0], node.outputs[0].shape) if node.inputs else (None, None)
    if node.op_type != "MatMul" or left is None or left.shape is None or made is None:
        return macs(node)
    inner = left.shape[-1]
    return prod(dim for dim in (*made, inner) if isinstance(dim, int))
