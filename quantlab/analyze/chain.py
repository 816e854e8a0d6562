"""A model as a chain of compiled segments, each in floating point, in INT8 and with switches.

What flows along the chain is the tensors that are still needed, by name.  So what several variants
have in common is run once, up to the segment in which they differ.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantlab.analyze.segments import Segment, cut
from quantlab.analyze.switches import Switched, quantized, switched, within
from quantlab.engines.ort_session import run
from quantlab.graph.sites import Edge
from quantlab.simulate import Array, Arrays, Draft, session

SEGMENTS = 10
"""More segments share more, and take longer to compile: three sessions each."""


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A compiled segment.

    Attributes:
        segment: what it computes.
        switches: its form with switches.
        ops: types of its nodes, by name.
        readers: type of the first node that reads each quantized tensor.
        plain, int8, open: sessions of the segment in floating point, in INT8, with switches.
    """

    segment: Segment
    switches: Switched
    ops: Mapping[str, str]
    readers: Mapping[str, str]
    plain: Any
    int8: Any
    open: Any

    def advance(self, state: Arrays, *, int8: bool) -> dict[str, Array]:
        """Return what is needed behind the segment, all of it in FP32 or all of it in INT8."""
        chosen = self.int8 if int8 else self.plain
        return self.kept(state, run(chosen, self.segment.outputs, self._inputs(state)))

    def switch(
        self, state: Arrays, on: Collection[Edge], extra: Collection[str] = ()
    ) -> dict[str, Array]:
        """Return the segment's outputs, and further tensors, with these inputs quantized."""
        given = {name: np.asarray(edge in on) for edge, name in self.switches.on.items()}
        wanted = dict.fromkeys((*self.segment.outputs, *extra))
        return run(self.open, tuple(wanted), {**self._inputs(state), **given})

    def kept(self, state: Arrays, made: Arrays) -> dict[str, Array]:
        """Return what is needed behind the segment of what was there and what it made."""
        return {n: a for n, a in {**state, **made}.items() if n in self.segment.live}

    def _inputs(self, state: Arrays) -> dict[str, Array]:
        return {name: state[name] for name in self.segment.inputs}


def compile_chain(draft: Draft) -> tuple[Link, ...]:
    """Cut and compile a draft.

    Raises:
        EngineError: ONNX Runtime refuses a segment.
    """
    edges = {e for a in draft.placement.activations for e in a.edges}
    edges |= {weight.edge for weight in draft.placement.weights}
    # A corrected bias may be stored with the node behind the layer, which must then be there.
    layers, whole = {edge.node for edge in edges}, draft.corrections.biases
    segments = cut(draft.model, layers, most=SEGMENTS, whole=whole)
    return tuple(_compile(segment, draft) for segment in segments)


def _compile(segment: Segment, draft: Draft) -> Link:
    placement = within(draft.placement, segment.nodes)
    int8 = quantized(
        segment.model,
        placement,
        draft.thresholds,
        policy=draft.policy,
        corrections=draft.corrections,
    )
    switches = switched(segment.model, int8, placement)
    models = (segment.model, int8, switches.model)
    ops = {str(node.name): node.op_type for node in segment.model.graph}
    readers = {a.tensor: ops[a.edges[0].node] for a in placement.activations}
    return Link(segment, switches, ops, readers, *(session(model) for model in models))
