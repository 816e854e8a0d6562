"""Equalization of channels that are only a little unequal, with the corrections made anew.

Evening out channels makes the activations' error smaller and the weights' larger.  By itself that
gains little or nothing on ordinary networks, and so ``equalize`` leaves them alone; but rounding
the weights by what their layers give (``adaround``) takes most of the weights' part away.  On a
denoiser of 17 layers the two together came to 38.0 dB, AdaRound alone to 36.7.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from quantlab.graph.equalize import equalize
from quantlab.repair.adaround import AdaRound
from quantlab.repair.base import Bench, Proposal
from quantlab.repair.bias import Bias
from quantlab.repair.rescaling import rescaled
from quantlab.simulate import Draft

WORTHWHILE = 1.05
"""Least ratio of modelled noise: sets that are even already are left alone."""


@dataclass(frozen=True, slots=True)
class Even:
    """Equalize everything that gains at all, then correct as the draft was corrected."""

    name: ClassVar[str] = "even"
    about: ClassVar[str] = "even out channels that are only a little unequal, correct anew"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """See ``Repair.propose``."""
        proposal = rescaled(draft, bench, partial(equalize, worthwhile=WORTHWHILE))
        found = proposal.draft
        if found is None:
            return proposal
        if draft.corrections.biases:
            found = Bias().propose(found, bench).draft or found
        if draft.corrections.weights:
            found = AdaRound().propose(found, bench).draft or found
        return Proposal(found, proposal.note)
