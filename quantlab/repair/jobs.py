"""Layers whose weights can be rounded otherwise than to nearest.

Time is counted in multiplications at ``RATE`` a second and not measured, so that what is rounded is
a function of the data; the layers that round worst come first, and one that does not fit into what
is left makes room for those behind it.

Limits: layers of which ``readable`` cannot tell what they read, and those whose weights several
        nodes read, stay as they are.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.corrections import StoredWeight
from quantlab.graph.insert_qdq import nearest_grid
from quantlab.graph.windows import readable
from quantlab.qparams import QParams, dequantize, neighbours, quantize_weights
from quantlab.repair.layers import Layer, layers
from quantlab.repair.patches import row_shape, rows
from quantlab.repair.rounding import Choice, Floats, rounded
from quantlab.simulate import Draft

RATE = 3e9
"""Multiplications a second that a common core does here at least."""

OVERHEAD = 4e5
"""Multiplications that take as long as what is done for each input whatever the layer's size."""

SAME = 1e-6
"""Steps within which a weight is on its grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A layer to round.

    Attributes:
        layer: whose weights.
        values: the weights.
        params: their grid.
    """

    layer: Layer
    values: NDArray[np.floating]
    params: QParams

    @property
    def places(self) -> NDArray[np.int64]:
        """Return where each output channel's weights are: (groups, channels, inputs)."""
        return rows(self.layer.node, self.values.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (groups, channels, inputs)."""
        return row_shape(self.layer.node, self.values.shape)

    def cost(self, seen: int) -> float:
        """Return multiplications for ``seen`` rows of what it reads, and to round by them."""
        groups, channels, inputs = self.shape
        each = inputs * (seen + 2 * inputs + 4 * channels) + OVERHEAD
        return float(groups * inputs * each)

    @property
    def gram_shape(self) -> tuple[int, int, int]:
        """Return (groups, inputs, inputs)."""
        groups, _, inputs = self.shape
        return groups, inputs, inputs


def source(node: ir.Node) -> str:
    """Return the tensor that a layer multiplies its weights with."""
    value = node.inputs[0]
    return "" if value is None else str(value.name)


def jobs(draft: Draft) -> list[Job]:
    """Return the layers that can be rounded and are off their grid, in graph order."""
    readers = Counter(weight.initializer for weight in draft.placement.weights)
    found = []
    for layer in layers(draft):
        value = layer.node.inputs[layer.weight.edge.index]
        known = None if value is None else value.const_value
        name = layer.weight.initializer
        values = np.zeros(()) if known is None else known.numpy()
        if readers[name] > 1 or not readable(layer.node, values.shape):
            continue
        given = draft.corrections.weights.get(name)
        params = nearest_grid(values, layer.weight.axis) if given is None else given.params
        job = Job(layer, values, params)
        steps, below, above = neighbours(values, params)
        if np.any(np.minimum(steps - below, above - steps) > SAME):
            found.append(job)
    return found


def affordable(draft: Draft, seconds: float, cost: Callable[[Job], float]) -> tuple[list[Job], str]:
    """Return the jobs that the time allows, those that round worst first, and a note for the trial.

    Args:
        draft: whose layers.
        seconds: for all of them together.
        cost: multiplications that a job takes.
    """
    found = jobs(draft)
    if not found:
        return [], "no weight that can be rounded otherwise is off its grid"
    left = seconds * RATE
    chosen = []
    for job in sorted(found, key=_noise, reverse=True):
        if cost(job) <= left:
            left -= cost(job)
            chosen.append(job)
    if not chosen:
        return [], f"{seconds:g} s are too few for any of {len(found)} layers"
    missing = len(found) - len(chosen)
    more = f", {missing} left out for want of time" if missing else ""
    return chosen, f"{len(chosen)} layers rounded{more}"


def _noise(job: Job) -> float:
    """Return the share of the weights' power that rounding to nearest costs."""
    wide = job.values.astype(np.float64)
    change = dequantize(quantize_weights(job.values, job.params), job.params) - wide
    return float(np.square(change).sum() / max(float(np.square(wide).sum()), 1e-300))


def stored(job: Job, grams: Floats) -> StoredWeight:
    """Return the weights rounded so that the layer's output changes least.

    Args:
        job: the layer.
        grams: second moments of what it reads, of ``job.gram_shape``.
    """
    nearest = quantize_weights(job.values, job.params)
    columns = (*neighbours(job.values, job.params), nearest.astype(np.float64))
    integers = nearest.ravel().copy()
    for group, places in enumerate(job.places):
        choice = Choice(*(column.ravel()[places] for column in columns))
        integers[places] = rounded(choice, grams[group]).astype(np.int8)
    return StoredWeight(integers.reshape(nearest.shape), job.params)
