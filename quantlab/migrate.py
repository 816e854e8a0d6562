"""From a TensorRT 8 to 10 calibration cache and its model to a Q/DQ model for TensorRT 11.

The cache's names are matched to the model's tensors (``cache_names``), the model is prepared and
placed as a run would do it, and the layers whose tensors have a scale are quantized with it.  The
others stay in floating point, and so do those whose INT8 rested on them (a residual Add without
its convolution).  Each layer has a row that says which, with which scale, from where, and why.

Units: scales in the tensor's own units; work in multiply-accumulates a sample.
Limits: a cache says nothing of weights, so they get their own maximum, as TensorRT 8 to 10 gave
them.  That a scale is of the right tensor is known by name alone.
"""

import glob
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from quantlab import cache, cache_names, cachetools, manifest
from quantlab.cache import Cache, some
from quantlab.cache_names import Match, Matching
from quantlab.errors import CacheError, ModelError
from quantlab.graph import model as graph
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.macs import macs
from quantlab.graph.normalize import normalize
from quantlab.graph.pins import pin
from quantlab.graph.placement import Placement, place
from quantlab.graph.prepare import prepare
from quantlab.graph.sites import Groups, tensors
from quantlab.records import Decision

UNCHANGED = frozenset({"Identity", "Dropout"})
"""Operators that preparing a model removes: their output's name is gone, or their input's."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What became of a layer.

    Attributes:
        node: its name; op: its type.
        quantized: whether it reads INT8.
        tensor: what it reads, or would read, as INT8; "" where placement keeps it in float.
        scale: of that tensor; None without one.
        source: where in the cache the scale is from, in words; "" without one.
        reason: why it is quantized or not.
        macs: its work; None if it has no weights.
    """

    node: str
    op: str
    quantized: bool
    tensor: str
    scale: float | None
    source: str
    reason: str
    macs: int | None


@dataclass(frozen=True, slots=True)
class Migration:
    """What a cache gave a model.

    Attributes:
        header: the cache's first line; entries: how many tensors it has.
        needed: tensors that are quantized with a complete cache, in graph order.
        matches: those of them that got a scale.
        missing: those that did not.
        zero: tensors whose scale is 0, which is none.
        parsers_own, ambiguous, unused: entries that were not used (``cache_names.Matching``).
        layers: a row for each layer that could be quantized, in graph order.
    """

    header: str
    entries: int
    needed: tuple[str, ...]
    matches: tuple[Match, ...]
    missing: tuple[str, ...]
    zero: tuple[str, ...]
    parsers_own: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unused: tuple[str, ...]
    layers: tuple[LayerRow, ...]

    @property
    def lost(self) -> tuple[LayerRow, ...]:
        """The layers that stay in floating point for want of a scale."""
        return tuple(row for row in self.layers if row.tensor and not row.quantized)

    def share(self, rows: Iterable[LayerRow]) -> float:
        """Return which part of the work with weights ``rows`` do, 0 to 1."""
        total = sum(row.macs or 0 for row in self.layers)
        return sum(row.macs or 0 for row in rows) / total if total else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Migrated:
    """A migration and the model it gave."""

    report: Migration
    model: ir.Model


def migrate(source: Path, model: Path, *, float16: bool = False) -> Migrated:
    """Make the Q/DQ model of a calibration cache and an ONNX model.

    Args:
        source: the cache; a manifest beside it is compared with the model.
        model: the FP32 ONNX file that the cache was made for.
        float16: whether the scales are to be numbers that FP16 has, for FP16 around the integers.

    Raises:
        CacheError: damaged, of another model by its manifest, or without a scale for any layer.
        ModelError: the model cannot be read, is quantized already, or has nothing to quantize.
    """
    found = cache.read(source)
    original = graph.load(model)
    prepared = prepare(original).model
    _check_manifest(source, prepared)
    full = place(prepared)
    matching = _match(found, normalize(original).model, prepared, full)
    scales = {name: match.scale for name, match in matching.matches.items()}
    thresholds = cache.thresholds_from(Cache(found.header, scales))
    placement, held = _possible(prepared, matching, source, len(full.tensors))
    quantized = insert_qdq(prepared, placement, thresholds, float16=float16)
    report = Migration(
        header=str(found.header),
        entries=len(found.scales),
        needed=full.tensors,
        matches=tuple(matching.matches[t] for t in full.tensors if t in matching.matches),
        missing=tuple(t for t in full.tensors if t not in matching.matches),
        zero=matching.zero,
        parsers_own=matching.parsers_own,
        ambiguous=matching.ambiguous,
        unused=matching.unused,
        layers=_rows(prepared, full, placement, matching, held),
    )
    return Migrated(report, quantized)


def _check_manifest(source: Path, prepared: ir.Model) -> None:
    if not manifest.beside(source).exists():
        return
    with TemporaryDirectory(prefix="quantlab.") as folder:
        path = Path(folder) / "prepared.onnx"
        graph.save(prepared, path)
        stale = cachetools.verify(source, (), manifest.model_digests(path)).stale
    if stale:
        raise CacheError(f"{source} was made for another model: {'; '.join(stale)}; recalibrate")


def _match(found: Cache, original: ir.Model, prepared: ir.Model, placement: Placement) -> Matching:
    names = [str(value.name) for model in (prepared, original) for value in tensors(model)]
    led = defaultdict(list)
    for follower, leader in placement.derived.items():
        led[leader].append(follower)
    return cache_names.match(
        found.scales,
        tuple(dict.fromkeys(names)),
        same=_unchanged(original),
        tied=[(leader, *followers) for leader, followers in led.items()],
        shared=placement.ties,
    )


def _unchanged(model: ir.Model) -> list[list[str]]:
    """Return groups of names of the same values in the model as it came."""
    groups = Groups()
    for node in model.graph:
        if node.op_type in UNCHANGED and node.inputs[0] is not None:
            groups.join(node.inputs[0], node.outputs[0])
    sets = groups.sets(tensors(model))
    return [[str(value.name) for value in group] for group in sets if len(group) > 1]


def _possible(
    model: ir.Model, matching: Matching, source: Path, needed: int
) -> tuple[Placement, dict[str, str]]:
    """Return what can be quantized, and for each layer that cannot, the tensor without a scale.

    A layer that is left out can take others with it, so it is placed anew until none is lost.
    """
    held: dict[str, str] = {}
    while True:
        kept = pin(model, {glob.escape(name): "fp16" for name in held})
        try:
            placement = place(kept)
        except ModelError as error:
            raise CacheError(_nothing(matching, source, needed, held)) from error
        lost = {
            edge.node: activation.tensor
            for activation in placement.activations
            if activation.tensor not in matching.matches
            for edge in activation.edges
        }
        if not lost:
            return placement, held
        held |= lost


def _nothing(matching: Matching, source: Path, needed: int, held: Mapping[str, str]) -> str:
    have = some([*matching.unused, *matching.ambiguous, *matching.parsers_own], 5)
    return (
        f"{source}: gives none of the model's layers a scale: of {needed} tensors that they read, "
        f"it lacks {some(list(dict.fromkeys(held.values())), 5)}"
        f"{f', and it has {have}, which the model has not' if have else ''}; "
        "give the model that the cache was made for, or calibrate this one"
    )


def _rows(
    model: ir.Model,
    full: Placement,
    placement: Placement,
    matching: Matching,
    held: Mapping[str, str],
) -> tuple[LayerRow, ...]:
    """Return a row for each layer that a complete cache would have decided on."""
    nodes = {str(node.name): node for node in model.graph}
    reads = {e.node: a.tensor for a in full.activations for e in a.edges}
    reads |= held
    now = {decision.node: decision for decision in placement.decisions}
    rows = []
    for decision in full.decisions:
        name = decision.node
        tensor = reads.get(name, "")
        match = matching.matches.get(tensor)
        node = nodes.get(name)
        rows.append(
            LayerRow(
                node=name,
                op=decision.op,
                quantized=now[name].quantized,
                tensor=tensor,
                scale=None if match is None else match.scale,
                source="" if match is None else str(match),
                reason=_reason(decision, now[name], held.get(name), matching),
                macs=None if node is None else macs(node),
            )
        )
    return tuple(rows)


def _reason(full: Decision, now: Decision, missing: str | None, matching: Matching) -> str:
    if missing is not None:
        why = "scale 0, so none," if missing in matching.zero else "no scale"
        return f"{missing!r} has {why} in the cache"
    if full.quantized and not now.quantized:
        return f"without the layers that stay in floating point: {now.reason}"
    return now.reason
