"""AdaRound: weights rounded up or down so that each layer's output changes least.

For each layer, inputs of FP32 that are quantized as INT8 has them are sampled, their second moments
G summed up, and the rounding chosen by ``rounding``.  Where the draft corrects biases, G is of the
deviations from the mean, since the bias takes a mean error away, and biases are corrected anew.

Source: Nagel et al., arXiv:2004.10568.  There a layer's inputs are those of the network that is
        rounded so far, a pass for each layer.  Here each is rounded for itself in one pass for
        all: a denoiser of 17 layers came to 34.8 dB, and layer after layer to 36.9 in 17 times as
        long.
Limits: layers of which ``patches`` cannot tell what they read, and those whose weights several
        nodes read, stay as they are.
Cost:   bounded by ``Bench.seconds`` at ``RATE`` operations a second, counted and not measured, so
        that the result is a function of the data; the layers that round worst come first, and the
        note counts those left out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.engines.ort_session import run
from quantlab.graph.corrections import Corrections, StoredWeight
from quantlab.graph.insert_qdq import grids, nearest_grid
from quantlab.graph.tap import tap
from quantlab.qparams import (
    QParams,
    dequantize,
    fake_quantize,
    neighbours,
    quantize_weights,
)
from quantlab.repair.base import Bench, Proposal
from quantlab.repair.bias import Bias
from quantlab.repair.layers import Layer, first, layers
from quantlab.repair.patches import patches, readable, rows
from quantlab.repair.rounding import Choice, Floats, rounded
from quantlab.simulate import Draft, session

RATE = 2e9
"""Multiplications a second that a common core does here at least."""

OVERHEAD = 4e5
"""Multiplications that take as long as what is done for each input whatever the layer's size."""

GRAM_BYTES = 256 << 20
"""Of the second moments that are summed up in one pass."""

SAME = 1e-6
"""Steps within which a weight is on its grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A layer to round.

    Attributes:
        layer: whose weights.
        values: the weights.
        params: their grid.
        places: where each output channel's weights are, (groups, channels, inputs).
    """

    layer: Layer
    values: NDArray[np.floating]
    params: QParams
    places: NDArray[np.int64]

    @property
    def source(self) -> str:
        """Return the tensor that it reads."""
        value = self.layer.node.inputs[0]
        return "" if value is None else str(value.name)

    @property
    def gram_shape(self) -> tuple[int, int, int]:
        """Return (groups, inputs, inputs)."""
        return (self.places.shape[0], self.places.shape[2], self.places.shape[2])


@dataclass(frozen=True, slots=True)
class AdaRound:
    """Rounds weights by what their layer gives.

    Attributes:
        samples: at most so many, up to the end of a batch.
        positions: that are looked at of each sample.
    """

    name: ClassVar[str] = "adaround"
    about: ClassVar[str] = "rounds each weight up or down by what its layer gives"

    samples: int = 64
    positions: int = 64

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """Return the draft with rounded weights, its biases corrected anew if it had any corrected.

        Raises:
            QuantlabError: the samples cannot be read or run.
        """
        jobs = _jobs(draft)
        if not jobs:
            return Proposal(None, "no weight that can be rounded otherwise is off its grid")
        chosen = self._affordable(jobs, bench.seconds)
        if not chosen:
            return Proposal(None, f"{bench.seconds:g} s are too few for any of {len(jobs)} layers")
        found = dict(draft.corrections.weights)
        for group in _parts(chosen):
            for job, gram in zip(group, self._grams(group, draft, bench), strict=True):
                found[job.layer.weight.initializer] = _round(job, gram)
        new = replace(draft, corrections=Corrections(found))
        left = len(jobs) - len(chosen)
        note = f"{len(chosen)} layers rounded"
        note += f", {left} left out for want of time" if left else ""
        if draft.corrections.biases:
            new = Bias().propose(new, bench).draft or new
            note += ", biases corrected anew"
        return Proposal(new, note)

    def _affordable(self, jobs: Sequence[Job], seconds: float) -> list[Job]:
        """Return the jobs that the time allows, those that round worst first."""
        left = seconds * RATE
        chosen = []
        for job in sorted(jobs, key=_noise, reverse=True):
            groups, channels, inputs = job.places.shape
            seen = self.samples * self.positions
            left -= groups * inputs * (inputs * (seen + 2 * inputs + 4 * channels) + OVERHEAD)
            if left < 0:
                break
            chosen.append(job)
        return chosen

    def _grams(self, jobs: Sequence[Job], draft: Draft, bench: Bench) -> list[Floats]:
        """Return each job's second moments, about the mean if biases are corrected."""
        found = grids(draft.placement, draft.thresholds, draft.policy)
        read = {e: found[a.tensor] for a in draft.placement.activations for e in a.edges}
        given = {value.name for value in draft.model.graph.inputs}
        names = tuple(dict.fromkeys(job.source for job in jobs if job.source not in given))
        floats = session(tap(draft.model, names))
        rng = np.random.default_rng(0)
        squares = [np.zeros(job.gram_shape, np.float32) for job in jobs]
        sums = [np.zeros(job.gram_shape[:2]) for job in jobs]
        counts = [0] * len(jobs)
        for inputs in first(bench.fit, self.samples):
            seen = {**inputs, **(run(floats, names, inputs) if names else {})}
            for i, job in enumerate(jobs):
                edge = replace(job.layer.weight.edge, index=0)
                x = seen[job.source].astype(np.float32)
                x = fake_quantize(x, read[edge]) if edge in read else x
                part = patches(job.layer.node, job.values.shape, x, count=self.positions, rng=rng)
                squares[i] += part.transpose(0, 2, 1) @ part
                sums[i] += part.sum(axis=1, dtype=np.float64)
                counts[i] += part.shape[1]
        share = 1.0 if draft.corrections.biases else 0.0
        return [
            s.astype(np.float64) / n - share * (m[:, :, None] / n) * (m[:, None, :] / n)
            for s, m, n in zip(squares, sums, counts, strict=True)
        ]


def _jobs(draft: Draft) -> list[Job]:
    """Return the layers that can be rounded and are not on their grid."""
    readers = Counter(weight.initializer for weight in draft.placement.weights)
    found = []
    for layer in layers(draft):
        value = layer.node.inputs[layer.weight.edge.index]
        known = None if value is None else value.const_value
        name = layer.weight.initializer
        values = np.zeros(()) if known is None else known.numpy()
        if readers[name] > 1 or not readable(layer.node, values.shape):
            continue
        stored = draft.corrections.weights.get(name)
        params = nearest_grid(values, layer.weight.axis) if stored is None else stored.params
        job = Job(layer, values, params, rows(layer.node, values.shape))
        steps, below, above = neighbours(values, params)
        if np.any(np.minimum(steps - below, above - steps) > SAME):
            found.append(job)
    return found


def _noise(job: Job) -> float:
    """Return the share of the weights' power that rounding to nearest costs."""
    wide = job.values.astype(np.float64)
    change = dequantize(quantize_weights(job.values, job.params), job.params) - wide
    return float(np.square(change).sum() / max(float(np.square(wide).sum()), 1e-300))


def _parts(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs in parts whose second moments fit into memory, one job at least."""
    parts: list[list[Job]] = []
    room = 0
    for job in jobs:
        size = int(np.prod(job.gram_shape)) * 4
        if size > room:
            parts.append([])
            room = GRAM_BYTES
        parts[-1].append(job)
        room -= size
    return parts


def _round(job: Job, gram: Floats) -> StoredWeight:
    nearest = quantize_weights(job.values, job.params)
    columns = (*neighbours(job.values, job.params), nearest.astype(np.float64))
    integers = nearest.ravel().copy()
    for group, places in enumerate(job.places):
        choice = Choice(*(column.ravel()[places] for column in columns))
        integers[places] = rounded(choice, gram[group]).astype(np.int8)
    return StoredWeight(integers.reshape(nearest.shape), job.params)
