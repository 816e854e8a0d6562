"""Centring tensors behind a ReLU: a grid of steps half the size, for an Add behind some layers.

On a denoiser of 17 layers the error that INT8 adds fell by 3.4 dB with it, when everything else
had been done (docs/decisions/0015).  It is for symmetric grids: UINT8 fits such a tensor as it is.

Units:  dB of the network's output.
Limits: those of ``graph/center.py``.  Rounded weights add a mean error that the shift makes larger,
        so without a correction of biases the draft is worse than before.
Cost:   one collection.  In use: an Add over the elements behind each layer that pads what it reads.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from quantlab.graph.center import Centred, center
from quantlab.graph.insert_qdq import grids
from quantlab.records import TensorThreshold, Thresholds
from quantlab.repair.base import Bench, Proposal
from quantlab.simulate import Draft


@dataclass(frozen=True, slots=True)
class Center:
    """Moves tensors behind a ReLU down by half their threshold."""

    name: ClassVar[str] = "center"
    about: ClassVar[str] = "move what a ReLU gives down by half its range"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """Return the centred draft, its corrections still to be made."""
        found = grids(draft.placement, draft.thresholds, draft.policy)
        symmetric = {
            name: draft.thresholds[name].threshold
            for name, params in found.items()
            if params.zero_point.dtype == np.int8
        }
        made = center(draft.model, draft.placement, symmetric)
        if not made.shifts:
            return Proposal(None, "no tensor between a ReLU and layers alone has a symmetric grid")
        new = bench.redraft(draft, made.model)
        thresholds = {
            n: _threshold(one, draft.thresholds, made) for n, one in new.thresholds.items()
        }
        return Proposal(replace(new, thresholds=thresholds), _told(made))


def _threshold(one: TensorThreshold, before: Thresholds, made: Centred) -> TensorThreshold:
    """Return a tensor's threshold: half of what it was if it is centred, else as it was."""
    name = one.tensor
    if name in made.shifts:
        shift = made.shifts[name]
        return replace(one, threshold=shift, minimum=-shift, method=before[name].method)
    return one if name in made.moved else before.get(name, one)


def _told(made: Centred) -> str:
    adds = f", with an Add behind {len(made.maps)} layers that pad them" if made.maps else ""
    return f"centred {len(made.shifts)} tensors{adds}"
