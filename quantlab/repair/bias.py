"""Bias correction: taking the mean error of each output channel off the layer's bias.

For the layers in the order of the graph, ``c = E[y] - E[y_q]`` for each channel, y of FP32 and y_q
of INT8, and the expectation over samples and positions; y_q is computed with the layers before it
corrected, since what they read changes what they get wrong.  One pass does all layers: while it
runs, the means of every layer of a batch are moved to those of FP32, and what was added is counted.

y is what the layer and its Relu or Clip give, residual Add included, while c is added before them:
what is cut off does no harm, and a channel that is seldom active is corrected the less.  Measured
on networks with Relu, the mean before it made their output worse.

Source: Nagel et al., arXiv:1906.04721, section 4.2 and appendix D (empirical, one layer after the
        other); arXiv:2106.08295, section 3.2.
Units:  of the layer's output.
Limits: means of a batch stand for those of all samples while layers behind are looked at.
Cost:   two inferences in FP32 for each sample; only means leave a run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.engines.ort_session import run
from quantlab.graph.channel_means import Point, point, with_given_means, with_means
from quantlab.graph.corrections import Corrections
from quantlab.repair.base import Bench, Proposal
from quantlab.repair.layers import batch_size, first, folded, layers
from quantlab.simulate import Arrays, Draft, session

SAMPLES = 64

NEGLIGIBLE = 1e-5
"""Mean error, relative to the largest mean of the layer, that sums in another order give too."""

Channels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bias:
    """Takes mean errors off biases.

    Attributes:
        samples: at most so many, up to the end of a batch.
    """

    name: ClassVar[str] = "bias"
    about: ClassVar[str] = "takes each layer's mean error off its bias"

    samples: int = SAMPLES

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """Return the draft with biases of its own in place of those it has.

        Raises:
            QuantlabError: the samples cannot be read or run.
        """
        found = mean_errors(draft, first(bench.fit, self.samples))
        if not found:
            return Proposal(None, "no layer has a mean error")
        corrections = Corrections(draft.corrections.weights, found)
        return Proposal(replace(draft, corrections=corrections), f"{len(found)} layers corrected")


def mean_errors(draft: Draft, batches: Iterable[Arrays]) -> dict[str, Channels]:
    """Return what to add to the output channels of each layer that has a mean error.

    Args:
        draft: whose own corrections of biases are left out.
        batches: of samples for fitting.
    """
    points = _points(draft)
    if not points:
        return {}
    wanted, means = with_means(draft.model, points)
    int8 = folded(draft, Corrections(draft.corrections.weights))
    moved, given, added = with_given_means(int8, points)
    floats, integers = session(wanted), session(moved)
    shift: dict[str, NDArray[np.float64]] = dict.fromkeys(points, np.zeros(1))
    size = dict.fromkeys(points, 0.0)
    count = 0
    for inputs in batches:
        right = run(floats, tuple(means.values()), inputs)
        told = {given[name]: right[mean] for name, mean in means.items()}
        came = run(integers, tuple(added.values()), {**inputs, **told})
        samples = batch_size(inputs)
        count += samples
        for name in points:
            shift[name] = shift[name] + samples * came[added[name]].ravel().astype(np.float64)
            size[name] = max(size[name], float(np.abs(right[means[name]]).max(initial=0.0)))
    mean = {name: np.asarray(total / max(count, 1), np.float32) for name, total in shift.items()}
    return {n: c for n, c in mean.items() if np.abs(c).max(initial=0.0) > NEGLIGIBLE * size[n]}


def _points(draft: Draft) -> dict[str, Point]:
    """Return where to look by layer; of layers that are added up, the first is corrected."""
    found: dict[Point, str] = {}
    for layer in layers(draft):
        found.setdefault(point(layer.node), layer.name)
    return {name: where for where, name in found.items()}
