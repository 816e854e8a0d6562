"""The ONNX model of a plan, made as the build makes it.

FP32 and FP16 engines are of the prepared model; INT8 is of the repaired one, with the nodes pinned
that the plan keeps from INT8, placed anew, and in FP16 around its integers where the backend wants
that.  Layers in floating point can move Q/DQ to a tensor that was never collected; what reads such
a tensor stays in floating point too, and belongs to the plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape

import onnx_ir as ir

from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.macs import macs
from quantlab.graph.pins import Float, Kind, forced, pin
from quantlab.graph.placement import Placement, policy_named
from quantlab.graph.to_fp16 import to_fp16
from quantlab.graph.view import WEIGHTED, constant
from quantlab.search.base import Candidate, Floats, Unit
from quantlab.search.half import half as in_half
from quantlab.simulate import Draft


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The model of a plan.

    Attributes:
        model: to build.
        judged: computes the same in FP32, which ONNX Runtime does as it is written.
        floats: the plan's, and what cannot be INT8 without them, in graph order.
        integers: layers with constant weights that are INT8.
        macs: of every layer with constants, by node, in graph order; 0 where not known.
    """

    model: ir.Model
    judged: ir.Model
    floats: Floats
    integers: frozenset[str]
    macs: Mapping[str, int]

    @property
    def macs_int8(self) -> float:
        """Share of the multiplications in INT8, 0 to 1."""
        total = sum(self.macs.values())
        taken = sum(count for node, count in self.macs.items() if node in self.integers)
        return taken / total if total else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Makes the models of plans.

    Attributes:
        prepared: of the FP32 and FP16 engines, with the nodes marked that the config gives a type.
        draft: of the INT8 model.
        around: type of what INT8 leaves in floating point.
    """

    prepared: ir.Model
    draft: Draft
    around: Float

    def units(self) -> tuple[Unit, ...]:
        """Return what all INT8 quantizes and the config does not demand, in graph order."""
        integers = _integers(self.draft.placement)
        return tuple(
            Unit(str(node.name), macs(node) or 0)
            for node in self.draft.model.graph
            if node.name in integers and not forced(node)
        )

    def make(self, candidate: Candidate) -> Made:
        """Return a plan's model.

        Raises:
            ModelError: it cannot be converted to FP16.
        """
        if candidate.precision == "int8":
            return self._int8(dict(candidate.floats))
        pinned = pin(self.prepared, _present(self.prepared, dict(candidate.floats)))
        made, judged = _finished(pinned, half=candidate.precision == "fp16")
        return Made(made, judged, candidate.floats, frozenset(), _macs(pinned))

    def _int8(self, kept: dict[str, Float]) -> Made:
        draft, half = self.draft, self.around == "fp16"
        model, placement = self._placed(kept)
        while missing := self._uncollected(placement) - kept.keys():
            kept |= dict.fromkeys(missing, self.around)
            model, placement = self._placed(kept)
        int8 = insert_qdq(
            model,
            placement,
            draft.thresholds,
            policy=draft.policy,
            float16=half,
            corrections=draft.corrections,
        )
        names = (str(node.name) for node in model.graph)
        floats = tuple((name, kept[name]) for name in names if name in kept)
        integers = frozenset(weight.edge.node for weight in placement.weights)
        made, judged = _finished(int8, half=half)
        return Made(made, judged, floats, integers, _macs(model))

    def _placed(self, kept: Mapping[str, Float]) -> tuple[ir.Model, Placement]:
        """Place with the nodes pinned; no layer may be left, unlike in a build."""
        model = pin(self.draft.model, _present(self.draft.model, kept))
        return model, policy_named(self.draft.policy).place(model)

    def _uncollected(self, placement: Placement) -> set[str]:
        """Return the nodes that would read a tensor that has no threshold."""
        return {
            edge.node
            for activation in placement.activations
            if activation.tensor not in self.draft.thresholds
            for edge in activation.edges
        }


def patterns(floats: Floats) -> dict[str, Kind]:
    """Return what pins nodes by their names, as the config's ``quantization.layers`` has it."""
    return {escape(node): kind for node, kind in floats}


def _finished(model: ir.Model, *, half: bool) -> tuple[ir.Model, ir.Model]:
    """Return the model to build and the model to judge."""
    return (to_fp16(model).model, in_half(model)) if half else (model, model)


def _present(model: ir.Model, kept: Mapping[str, Float]) -> dict[str, Kind]:
    """Return the patterns of the nodes that a model has: repairs add and remove some."""
    return patterns(tuple((str(n.name), kept[str(n.name)]) for n in model.graph if n.name in kept))


def _integers(placement: Placement) -> set[str]:
    edges = [edge for activation in placement.activations for edge in activation.edges]
    return {edge.node for edge in (*edges, *(weight.edge for weight in placement.weights))}


def _macs(model: ir.Model) -> dict[str, int]:
    """Return the MACs of the layers with constant weights; 1 each where no shape is known."""
    layers = [n for n in model.graph if n.op_type in WEIGHTED and any(map(constant, n.inputs))]
    found = {str(node.name): macs(node) or 0 for node in layers}
    return found if any(found.values()) else dict.fromkeys(found, 1)
