"""What the worst layers suffer from, in words, and the repair that is likely to help.

A layer's quantized tensors and weights are judged apart; the worst of them is described.  Of a
tensor: how its largest magnitude compares with the 99.9th percentile, how many of the steps its
bulk uses, what is clipped, and whether its channels are alike.  Of weights: whether input channels
are alike, and whether single weights stand out within the range of a scale.

The repairs named are those whose cause is seen.  Whether one helps is measured by trying it.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantlab.analyze.shapes import Shape, shape_of, spread
from quantlab.analyze.switches import stored_array
from quantlab.findings import CHOOSE, Finding, Sensitivity
from quantlab.graph.insert_qdq import grids
from quantlab.graph.sites import Weight
from quantlab.graph.view import PRODUCTS, WEIGHTED
from quantlab.simulate import Draft

MOST = 5
"""Layers that are described."""

NEAR = 10.0
"""dB above the worst from which on a layer is not worth a word."""

UNEQUAL = 8.0
"""Largest over median channel from which on channels are called unequal: 3 of 8 bits."""

SCALABLE = WEIGHTED | {"Relu", "LeakyRelu", "PRelu", "Add", "MaxPool", "AveragePool"}
"""Operators whose output can be scaled by scaling the weights before them."""

EQUALIZED = SCALABLE - {"Add"}
"""Those of them behind which a product's input is equalized; an Add may be a normalization's."""

TAIL = 4.0
"""Largest magnitude over the 99.9th percentile from which on a tensor has a tail: 2 bits."""

CLIPPED = 0.01
"""Share of elements from which on clipping is named."""

HELPS = 0.5
"""dB that the rest gains without a layer, from which on keeping it in floating point is told."""

SHIFTED = 0.3
"""Share of a layer's error that is a constant for each channel from which on it is named."""

Said = tuple[str, str]
"""A sentence or more, and the repair."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen beside the errors.

    Attributes:
        channels: (channels,) largest magnitude in each quantized tensor.
        shifts: share of each layer's own error that is a constant for each channel.
    """

    channels: Mapping[str, NDArray[np.float64]]
    shifts: Mapping[str, float]


def findings(
    draft: Draft, rows: Sequence[Sensitivity], evidence: Evidence, all_db: float | None
) -> tuple[Finding, ...]:
    """Return a finding for each of the worst layers, the worst first.

    Args:
        draft: that was analyzed.
        rows: ranked.
        evidence: of the same samples.
        all_db: SQNR at the output with everything quantized.
    """
    found = []
    worst = [r for r in rows if r.kind == "layer" and r.alone_db is not None][:MOST]
    for layer in worst:
        if layer.alone_db is None or layer.alone_db > (worst[0].alone_db or 0.0) + NEAR:
            continue
        parts = _parts(draft, rows, layer.name)
        part = min(parts, key=lambda row: _level(row.alone_db), default=layer)
        if part.kind == "weight":
            text, repair = _about_weights(draft, part, layer, evidence)
        else:
            text, repair = _about_tensor(draft, part, evidence)
        text += "" if repair else _unexplained(layer, all_db)
        without = _db(layer.without_db)
        opening = (
            f"{layer.op} {layer.name!r} quantized alone leaves {_db(layer.alone_db)} at the "
            f"output; all of INT8 leaves {_db(all_db)}, and {without} without it. "
        )
        found.append(Finding(layer.name, opening + text, repair))
    return tuple(found)


def _unexplained(layer: Sensitivity, all_db: float | None) -> str:
    """Say what is left where nothing that was seen explains the error."""
    if _level(layer.without_db) >= _level(all_db) + HELPS:
        return (
            ": the layer is sensitive as it is; keep it in floating point with "
            "'quantization: layers' if the target asks for it"
        )
    return ", and without it the rest loses as much: 'repair: auto' tries what helps them all"


def _parts(draft: Draft, rows: Iterable[Sensitivity], node: str) -> list[Sensitivity]:
    """Return the rows of the tensors and weights that a node reads quantized."""
    tensors = {
        a.tensor for a in draft.placement.activations if any(e.node == node for e in a.edges)
    }
    weights = {w.initializer for w in draft.placement.weights if w.edge.node == node}
    wanted = {("activation", name) for name in tensors} | {("weight", name) for name in weights}
    return [row for row in rows if (row.kind, row.name) in wanted]


def _about_tensor(draft: Draft, row: Sensitivity, evidence: Evidence) -> Said:
    grid = grids(draft.placement, draft.thresholds, draft.policy)[row.name]
    shape = shape_of(draft.histograms[row.name], draft.thresholds[row.name], grid)
    seen = f"Most comes from tensor {row.name!r}: {_histogram(shape)}. "
    channels = evidence.channels.get(row.name)
    ratio, standing_out = spread(channels, UNEQUAL)
    if channels is not None and ratio >= UNEQUAL:
        text, repair = _unequal(draft, row, (len(channels), ratio, standing_out))
        return seen + text, repair
    if shape.tail >= TAIL and shape.clipped < CLIPPED:
        return seen + (
            "A few values set the scale for all: another calibrator, which clips them "
            "('calibration.method: auto' finds one), is likely to help"
        ), CHOOSE
    if shape.clipped >= CLIPPED:
        return seen + (
            f"{shape.clipped:.1%} of its values are clipped: another calibrator, which clips less "
            "('calibration.method: auto' finds one), is likely to help"
        ), CHOOSE
    return seen + "Neither tail nor channels explain the error", ""


def _unequal(draft: Draft, row: Sensitivity, seen: tuple[int, float, int]) -> Said:
    """Say what unequal channels mean for the node that reads them.

    Args:
        draft: that was analyzed.
        row: of the tensor.
        seen: how many channels there are, the largest over the median, how many stand out.
    """
    channels, ratio, standing_out = seen
    text = (
        f"Its channels are unequal: the largest reaches {ratio:.3g} times the median one, and "
        f"{standing_out} of {channels} more than {UNEQUAL:g} times: most use few steps. "
    )
    if row.op in PRODUCTS and not _made_by(draft, row.name, EQUALIZED):
        return text + "Moving the range into the weights ('smooth') is likely to help", "smooth"
    if _made_by(draft, row.name, SCALABLE):
        text += "Equalizing them with the layer before ('equalize') is likely to help"
        return text, "equalize"
    text += (
        "What makes them lets no factor through, so handling the largest channels apart "
        "('outliers') is likely to help"
    )
    return text, "outliers"


def _made_by(draft: Draft, tensor: str, operators: Container[str]) -> bool:
    """Whether the node that makes a tensor is one of these."""
    made = (n for n in draft.model.graph if any(v.name == tensor for v in n.outputs))
    return any(node.op_type in operators for node in made)


def _histogram(shape: Shape) -> str:
    parts = [
        f"its largest magnitude {shape.amax:.3g} is {shape.tail:.3g} times the 99.9th percentile",
        f"99 % of its values use {shape.steps} of {shape.levels} steps",
    ]
    if shape.clipped >= 0.0005:
        parts.append(f"{shape.clipped:.2%} are clipped at {shape.threshold:.3g}")
    if shape.zeros > 0.5:
        parts.append(f"{shape.zeros:.0%} are zero")
    if shape.one_sided:
        parts.append("none is negative")
    return ", ".join(parts)


def _about_weights(draft: Draft, row: Sensitivity, layer: Sensitivity, evidence: Evidence) -> Said:
    weight = next(w for w in draft.placement.weights if w.initializer == row.name)
    stored = stored_array(draft.model.graph.initializers[row.name])
    magnitudes = np.abs(stored.astype(np.float64))
    seen = f"Most comes from its weights {row.name!r}, {_db(row.own_db)} themselves. "
    ratio, count = spread(_input_channels(magnitudes, weight), UNEQUAL)
    if ratio >= UNEQUAL:
        return seen + (
            f"Their input channels are unequal, {count} more than {UNEQUAL:g} times the median: "
            "equalizing them with the layer before ('equalize') is likely to help"
        ), "equalize"
    shift = evidence.shifts.get(layer.name, 0.0)
    if shift >= SHIFTED:
        return seen + (
            f"{shift:.0%} of the error at its output is a constant for each channel: correcting "
            "the bias ('bias') is likely to help"
        ), "bias"
    tail = float(magnitudes.max() / max(float(np.percentile(magnitudes, 99.9)), 1e-30))
    if tail >= TAIL:
        return seen + (
            f"The largest is {tail:.3g} times the 99.9th percentile: a tighter range ('weights') "
            "is likely to help"
        ), "weights"
    return seen + (
        "Their range is used evenly: rounding them by the layer's output ('adaround') is what is "
        "left"
    ), "adaround"


def _input_channels(magnitudes: NDArray[np.float64], weight: Weight) -> NDArray[np.float64] | None:
    """Return the largest weight of each input channel; None where there is only one."""
    if weight.axis is None or magnitudes.ndim < 2:
        return None
    axis = 1 if weight.axis % magnitudes.ndim == 0 else 0
    others = tuple(i for i in range(magnitudes.ndim) if i != axis)
    return np.asarray(magnitudes.max(axis=others))


def _level(db: float | None) -> float:
    return float("inf") if db is None else db


def _db(value: float | None) -> str:
    return "no error" if value is None else f"{value:.1f} dB"
