"""Why a layer of an INT8 engine did not run in INT8: what the backend did, joined with placement.

An executed layer is that of a node of its name, or of the nodes that a fusion lists for it.  Where
placement decided about none of them, the rules of ``quantlab.graph.followers`` speak.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quantlab.records import Decision, EngineReport, Layer, Report

CHOSEN = "its inputs are quantized; the backend chose a kernel in floating point"
AMONG = "it could work on integers like its neighbours; the backend chose floating point"
UNNAMED = "the backend does not say which of the model's nodes it computes"


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
    decided = {decision.node: decision for decision in report.placement}
    followers = {decision.node: decision for decision in report.followers}
    engines = [engine for engine in report.engines if engine.precision == "int8"]
    return tuple(left for engine in engines for left in _of(engine, decided, followers))


def _of(
    engine: EngineReport, decided: Mapping[str, Decision], followers: Mapping[str, Decision]
) -> Iterator[Left]:
    nodes = {fusion.layer: fusion.nodes for fusion in engine.fusions}
    layers = {layer.name: layer for layer in engine.layers}
    for name in engine.float_layers:
        own = nodes.get(name, (name,))
        reason = _reason(_decisions(own, decided), _decisions(own, followers))
        yield Left(engine, name, layers.get(name), reason)
    for layer in engine.layers:
        if layer.weighted or layer.integer:
            continue
        found = _decisions(nodes.get(layer.name, (layer.name,)), decided)
        if found:
            yield Left(engine, layer.name, layer, _reason(found, []))


def _decisions(nodes: tuple[str, ...], decisions: Mapping[str, Decision]) -> list[Decision]:
    return [decisions[node] for node in nodes if node in decisions]


def _reason(decided: list[Decision], followers: list[Decision]) -> str:
    """Return the first rule's that kept one of the nodes from INT8; placement speaks first."""
    found = decided or followers
    refused = [decision.reason for decision in found if not decision.quantized]
    if refused:
        return refused[0]
    if decided:
        return CHOSEN
    return AMONG if followers else UNNAMED
