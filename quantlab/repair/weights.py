"""Weight thresholds of least squared error: the largest weights are clipped where it pays.

For each output channel of each quantized weight, the scale is searched among fractions of the one
that spans its range, ``s = f amax / 127``; the least ``sum (w - q(w; s))**2`` wins, and of equals
the largest s.

Source: Nagel et al., arXiv:2106.08295, section 3.1.
Units:  scales in the weights' own units a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.graph.corrections import Corrections, StoredWeight
from quantlab.graph.insert_qdq import nearest_grid
from quantlab.graph.sites import Weight
from quantlab.qparams import QParams, dequantize, quantize_weights
from quantlab.repair.base import Bench, Proposal
from quantlab.simulate import Draft

FRACTIONS = np.linspace(1.0, 0.5, 51)


@dataclass(frozen=True, slots=True)
class Weights:
    """Searches the scale of each weight channel; of weights that are corrected already, none."""

    name: ClassVar[str] = "weights"
    about: ClassVar[str] = "clips the largest weights where that makes the others finer"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:  # noqa: ARG002  # needs no samples
        """Return the draft with the weights on the grids found."""
        found: dict[str, StoredWeight] = {}
        channels = clipped = 0
        for weight, values in _uncorrected(draft):
            whole = nearest_grid(values, weight.axis)
            params = least_squares(values, whole)
            tighter = int((params.scale < whole.scale).sum())
            channels, clipped = channels + whole.scale.size, clipped + tighter
            if tighter:
                found[weight.initializer] = StoredWeight(quantize_weights(values, params), params)
        if not found:
            return Proposal(None, "no weight has a better scale than that of its range")
        corrections = Corrections({**draft.corrections.weights, **found}, draft.corrections.biases)
        note = f"a tighter scale for {clipped} of {channels} channels of weights"
        return Proposal(replace(draft, corrections=corrections), note)


def least_squares(weights: NDArray[np.floating], whole: QParams) -> QParams:
    """Return the scales of least squared error, at most those of ``whole``.

    Args:
        weights: finite, of any shape.
        whole: the grid that spans their range.
    """
    rows = _rows(weights, whole.axis)
    best = np.full(len(rows), np.inf)
    scale = np.ones(len(rows), np.float32)
    for fraction in FRACTIONS:
        tried = np.asarray(whole.scale * fraction, np.float32).reshape(-1)
        grid = QParams(tried, np.zeros(tried.shape, np.int8), 0)
        error = np.square(rows - dequantize(quantize_weights(rows, grid), grid)).sum(axis=1)
        better = error < best
        best[better], scale[better] = error[better], tried[better]
    return QParams(scale.reshape(whole.scale.shape), whole.zero_point, whole.axis)


def _rows(weights: NDArray[np.floating], axis: int | None) -> NDArray[np.float64]:
    """Return a row for each scale."""
    wide = weights.astype(np.float64)
    if axis is None:
        return wide.reshape(1, -1)
    return np.moveaxis(wide, axis, 0).reshape(weights.shape[axis], -1)


def _uncorrected(draft: Draft) -> Iterator[tuple[Weight, NDArray[np.floating]]]:
    """Yield the weights that have one grid and none that a repair gave them."""
    nodes = {str(node.name): node for node in draft.model.graph}
    axes: dict[str, set[int | None]] = {}
    first: dict[str, Weight] = {}
    for weight in draft.placement.weights:
        axes.setdefault(weight.initializer, set()).add(weight.axis)
        first.setdefault(weight.initializer, weight)
    for name, weight in first.items():
        value = nodes[weight.edge.node].inputs[weight.edge.index]
        known = None if value is None else value.const_value
        if len(axes[name]) == 1 and name not in draft.corrections.weights and known is not None:
            yield weight, known.numpy()
