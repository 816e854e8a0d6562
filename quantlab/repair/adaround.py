"""AdaRound: weights rounded up or down so that each layer's output changes least.

For each layer, inputs of FP32 that are quantized as INT8 has them are sampled, their second moments
G summed up, and the rounding chosen by ``rounding``.  Where the draft corrects biases, G is of the
deviations from the mean, since the bias takes a mean error away, and biases are corrected anew.

Source: Nagel et al., arXiv:2004.10568.  There a layer's inputs are those of the network that is
        rounded so far, a pass for each layer.  Here each is rounded for itself in one pass for
        all; layer after layer is what ``refit`` does.
Cost:   bounded by ``Bench.seconds`` as ``jobs`` counts it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from quantlab.engines.ort_session import run
from quantlab.graph.corrections import Corrections
from quantlab.graph.insert_qdq import grids
from quantlab.graph.tap import tap
from quantlab.qparams import fake_quantize
from quantlab.repair.base import Bench, Proposal
from quantlab.repair.bias import Bias
from quantlab.repair.jobs import Job, affordable, source, stored
from quantlab.repair.layers import first
from quantlab.repair.patches import patches
from quantlab.repair.rounding import Floats
from quantlab.simulate import Draft, session

GRAM_BYTES = 256 << 20
"""Of the second moments that are summed up in one pass."""


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
        rows = self.samples * self.positions
        chosen, note = affordable(draft, bench.seconds, lambda job: job.cost(rows))
        if not chosen:
            return Proposal(None, note)
        found = dict(draft.corrections.weights)
        for group in _parts(chosen):
            for job, gram in zip(group, self._grams(group, draft, bench), strict=True):
                found[job.layer.weight.initializer] = stored(job, gram)
        new = replace(draft, corrections=Corrections(found))
        if draft.corrections.biases:
            new = Bias().propose(new, bench).draft or new
            note += ", biases corrected anew"
        return Proposal(new, note)

    def _grams(self, jobs: Sequence[Job], draft: Draft, bench: Bench) -> list[Floats]:
        """Return each job's second moments, about the mean if biases are corrected."""
        found = grids(draft.placement, draft.thresholds, draft.policy)
        read = {e: found[a.tensor] for a in draft.placement.activations for e in a.edges}
        given = {value.name for value in draft.model.graph.inputs}
        sources = dict.fromkeys(source(job.layer.node) for job in jobs)
        names = tuple(name for name in sources if name not in given)
        floats = session(tap(draft.model, names))
        rng = np.random.default_rng(0)
        squares = [np.zeros(job.gram_shape, np.float32) for job in jobs]
        sums = [np.zeros(job.gram_shape[:2]) for job in jobs]
        counts = [0] * len(jobs)
        for inputs in first(bench.fit, self.samples):
            seen = {**inputs, **(run(floats, names, inputs) if names else {})}
            for i, job in enumerate(jobs):
                edge = replace(job.layer.weight.edge, index=0)
                x = seen[source(job.layer.node)].astype(np.float32)
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
