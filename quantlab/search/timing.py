"""A plan's measured speed: its engine built, and run in turns with FP32's and FP16's.

The whole float engines stay open, so that every plan is measured beside them, and what a machine
does to all of them at once cancels out.  A plan's latency is FP32's, measured first, over the
plan's speedup over FP32 in the same rounds; its interval is the speedup's.  Latency here is an
inference's share of the time that many in a row take.

Layer times are of whole engines only, from the backend's profile: an executed layer that does the
work of several nodes is shared out among those that are layers themselves.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from quantlab.engines.base import Array, BuildContext, Engine, Runner
from quantlab.graph import model as graph
from quantlab.graph.view import sole_input
from quantlab.performance import Schedule, measure
from quantlab.records import EngineInfo, Precision
from quantlab.search.base import Candidate, Latency
from quantlab.search.models import Made

MODEL = "model.onnx"
WHOLE, MIXED = "whole", "mixed"
"""Folders of the engines that stay open, and of the one at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What every plan is timed with.

    Attributes:
        engine: builds and opens.
        context: of its builds.
        inputs: one batch of real samples.
        schedule: how long; of one batch size.
    """

    engine: Engine
    context: BuildContext
    inputs: Mapping[str, Array]
    schedule: Schedule


@dataclass(slots=True, eq=False)
class Stopwatch:
    """Builds and measures plans; mutable on purpose: the float engines are added to it.

    Attributes:
        track: what plans are timed with.
        folder: scratch.
        stack: closes the float engines.
        floats: open engines by precision.
        fp32_ms: of the FP32 engine.
    """

    track: Track
    folder: Path
    stack: ExitStack
    floats: dict[Precision, Runner] = field(default_factory=dict)
    fp32_ms: float = 0.0

    def time(self, candidate: Candidate, made: Made) -> Latency:
        """Build a plan's engine and measure it; the FP32 engine comes first.

        Raises:
            EngineError: the backend refuses it, or failed.
        """
        precision, whole = candidate.precision, candidate.precision != "int8"
        stays = whole and not candidate.floats
        with ExitStack() as closing:
            stack = self.stack if stays else closing
            runner = self._opened(candidate, made, WHOLE if stays else MIXED, stack)
            slot: Precision = precision if stays else "int8"
            latency = self._measured(self.floats | {slot: runner}, slot)
            if stays:
                self.floats[precision] = runner
            if candidate.floats:
                return latency
            layers = times(runner.describe(), made)
        return Latency(latency.ms, latency.low, latency.high, "measured", layers)

    def _opened(self, candidate: Candidate, made: Made, name: str, stack: ExitStack) -> Runner:
        folder, engine, model = self.folder / name, self.track.engine, self.folder / MODEL
        folder.mkdir(exist_ok=True)
        graph.save(made.model, model)
        build = engine.build(model, candidate.precision, folder, self.track.context)
        return stack.enter_context(engine.open(build, self.folder))

    def _measured(self, runners: Mapping[Precision, Runner], slot: Precision) -> Latency:
        found = measure(runners, lambda _: self.track.inputs, schedule=self.track.schedule)
        one = found[slot][0]
        if one.speedup is None:
            each = 1e3 * one.batch
            self.fp32_ms = each / one.throughput
            low, high = each / one.throughput_high, each / one.throughput_low
            return Latency(self.fp32_ms, low, high, "measured")
        faster = one.speedup
        return Latency(
            self.fp32_ms / faster.value,
            self.fp32_ms / faster.high,
            self.fp32_ms / faster.low,
            "measured",
        )


@contextmanager
def stopwatch(track: Track, folder: Path) -> Iterator[Stopwatch]:
    """Keep the float engines open for the block.

    Args:
        track: what plans are timed with.
        folder: existing and empty.
    """
    with ExitStack() as stack:
        yield Stopwatch(track, folder, stack)


def times(info: EngineInfo, made: Made) -> dict[str, float]:
    """Return ms of the model's layers that the engine tells, by node, in its order.

    Args:
        info: of an engine that was run.
        made: its model.
    """
    nodes = {str(output.name): node for node in made.model.graph for output in node.outputs}
    nodes |= {str(node.name): node for node in made.model.graph}
    joined = {fusion.layer: fusion.nodes for fusion in info.fusions}
    found: dict[str, float] = {}
    for layer in info.layers:
        names = (layer.name, *joined.get(layer.name, ()))
        layers = dict.fromkeys(_layer(nodes.get(name), made.macs) for name in names)
        within = [name for name in layers if name]
        for name in within:
            if layer.weighted and layer.ms is not None:
                found[name] = found.get(name, 0.0) + layer.ms / len(within)
    return found


def _layer(node: ir.Node | None, layers: Collection[str]) -> str:
    """Return the layer that a node is or is fused into.

    OpenVINO names a product by its bias, or by its output where that is the model's.
    """
    while node is not None and node.name not in layers:
        before = node.inputs[0] if node.op_type == "Cast" else sole_input(node)
        node = None if before is None else before.producer()
    return "" if node is None else str(node.name)
