"""Rounding weights up or down so that what a layer gives changes least.

With D the change of an output channel's weights and G the second moments of what they are
multiplied with, the layer's squared error is ``D G D^T``.  Of the two integers beside each weight
one is chosen:

1. one input after the other, where those that are still to come make up for what is wrong so far
   as well as they can (Frantar et al., arXiv:2210.17323, here within the two integers);
2. then each choice is turned over where that lessens the error, in ``SWEEPS`` rounds at most.

A channel for which that is no better than rounding to nearest is rounded to nearest.

Source: the problem is AdaRound's, Nagel et al., arXiv:2004.10568, which relaxes it; with G the
        error is exact and cheap, and no step sizes are needed.
Units:  weights in steps of their grid; the error in squared steps times G's unit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SWEEPS = 8

DAMPING = 0.01
"""Part of G's mean diagonal that is added to it: G is of few samples, and may have no inverse."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Output channels and the integers that their weights can take.

    Attributes:
        steps: (channels, inputs) weights in steps.
        below, above: the integers beside them, within the limits.
        nearest: the one of the two that rounding gives.
    """

    steps: Floats
    below: Floats
    above: Floats
    nearest: Floats


def rounded(choice: Choice, gram: Floats) -> Floats:
    """Return integers (channels, inputs) of little error, never of more than ``nearest``.

    Args:
        choice: of the channels of one group.
        gram: (inputs, inputs) second moments of what the weights are multiplied with.
    """
    damped = gram + np.eye(len(gram)) * max(DAMPING * float(np.diag(gram).mean()), 1e-30)
    found = _descend(_in_turn(choice, damped), choice, damped)
    better = errors(found - choice.steps, gram) < errors(choice.nearest - choice.steps, gram)
    return np.where(better[:, None], found, choice.nearest)


def errors(change: Floats, gram: Floats) -> Floats:
    """Return ``D G D^T`` of each channel, (channels,)."""
    return np.asarray((change @ gram * change).sum(axis=1))


def _in_turn(choice: Choice, gram: Floats) -> Floats:
    """Round one input after the other; ``shares[i]`` tells what those behind i make up for."""
    shares = np.linalg.cholesky(np.linalg.inv(gram)).T
    left, found = choice.steps.copy(), np.empty_like(choice.steps)
    for i in range(len(gram)):
        below, above = choice.below[:, i], choice.above[:, i]
        found[:, i] = np.where(left[:, i] - below > above - left[:, i], above, below)
        error = (left[:, i] - found[:, i]) / shares[i, i]
        left[:, i + 1 :] -= error[:, None] * shares[i, i + 1 :]
    return found


def _descend(found: Floats, choice: Choice, gram: Floats) -> Floats:
    """Turn choices over while that lessens the error."""
    found = found.copy()
    slope = (found - choice.steps) @ gram
    for _ in range(SWEEPS):
        turned = 0
        for i in range(len(gram)):
            change = choice.below[:, i] + choice.above[:, i] - 2 * found[:, i]
            gain = change * (2 * slope[:, i] + change * gram[i, i])
            rows = np.flatnonzero(gain < 0)
            found[rows, i] += change[rows]
            slope[rows] += change[rows, None] * gram[i]
            turned += rows.size
        if not turned:
            break
    return found
