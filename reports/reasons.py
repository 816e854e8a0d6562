"""Why a layer of an INT8 engine did not run in INT8: what the backend did, joined with placement.

An executed layer is that of a node of its name, or of the nodes that a fusion lists for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quantlab.records import Decision, EngineReport, Layer, Report

CHOSEN = "its inputs are quantized; the backend chose a kernel in floating point"
SILENT = "no rule of placement speaks for it: it takes the type of its neighbours"


@dataclass(frozen=True, slots=True)
class Left:
    """A layer that did not run in INT8, and why.

    Attributes:
        engine: whose.
        name: of the layer.
        layer: as the backend tells it; None if it only named it.
        reason: in a sentence.
    """

    engine: EngineReport
    name: str
    layer: Layer | None
    reason: str


def left_out(report: Report) -> tuple[Left, ...]:
    """Return the layers of the INT8 engines that ran in floating point, weighted ones first.

    Beside the weighted layers these are the ones that placement decided about, such as an Add.
    """
    decisions = {decision.node: decision for decision in report.placement}
    engines = [engine for engine in report.engines if engine.precision == "int8"]
    return tuple(left for engine in engines for left in _of(engine, decisions))


def _of(engine: EngineReport, decisions: Mapping[str, Decision]) -> Iterator[Left]:
    nodes = {fusion.layer: fusion.nodes for fusion in engine.fusions}
    layers = {layer.name: layer for layer in engine.layers}
    for name in engine.float_layers:
        found = _decisions(nodes.get(name, (name,)), decisions)
        yield Left(engine, name, layers.get(name), _reason(found))
    for layer in engine.layers:
        if layer.weighted or layer.integer:
            continue
        found = _decisions(nodes.get(layer.name, (layer.name,)), decisions)
        if found:
            yield Left(engine, layer.name, layer, _reason(found))


def _decisions(nodes: tuple[str, ...], decisions: Mapping[str, Decision]) -> list[Decision]:
    return [decisions[node] for node in nodes if node in decisions]


def _reason(found: list[Decision]) -> str:
    refused = [decision.reason for decision in found if not decision.quantized]
    if refused:
        return refused[0]
    return CHOSEN if found else SILENT
