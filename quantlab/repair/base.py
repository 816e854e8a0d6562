"""What a repair is: from a draft of the INT8 model to a better one, or a reason to leave it.

A draft holds everything that the INT8 model is made of.  Repairs return a new draft and never
change one.  Who judges them is ``auto``: a repair only proposes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import onnx_ir as ir

from quantlab.graph.channel_sets import Ranges
from quantlab.graph.placement import place
from quantlab.histogram import Histogram
from quantlab.records import Thresholds
from quantlab.simulate import Batches, Draft

Decide = Callable[[ir.Model, Mapping[str, Histogram]], Thresholds]
"""The config's method: a threshold for every collected tensor of a float model; those that are tied
get one."""


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What repairs work with.

    Attributes:
        fit: a pass over the samples for fitting: nothing held back, nothing of the evaluation.
        collect: runs a float model on them and counts tensors.
        decide: the method for tensors whose histograms are new.
        channels: runs a float model on them for the largest magnitude of each channel, of the
            tensors that ``channel_sets.axes`` names; of a model asked for again it is known.
        seconds: that one repair may take, where it can use more or less.
    """

    fit: Batches
    collect: Callable[[ir.Model, Sequence[str]], Mapping[str, Histogram]]
    decide: Decide
    channels: Callable[[ir.Model], Ranges]
    seconds: float = 60.0

    def redraft(self, draft: Draft, model: ir.Model) -> Draft:
        """Return the draft of another float model: placed, collected and decided anew.

        The tensors that were collected are collected again; corrections of weights do not carry
        over, since the weights may have changed.
        """
        placement = place(model, draft.policy)
        names = dict.fromkeys((*draft.histograms, *placement.tensors))
        histograms = self.collect(model, tuple(names))
        decided = self.decide(model, histograms)
        return Draft(model, draft.policy, placement, histograms, decided)


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What a repair makes of a draft.

    Attributes:
        draft: the new one, or None where the repair has nothing to do.
        note: what it changed, or why it left the draft as it was: a sentence without a full stop.
    """

    draft: Draft | None
    note: str


class Repair(Protocol):
    """Proposes a better draft; implementations are frozen dataclasses of their parameters."""

    name: ClassVar[str]
    """Its name in REPAIRS and in the config."""

    about: ClassVar[str]
    """What it does, in a sentence."""

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """Return a new draft, or the reason why there is none.

        Raises:
            QuantlabError: the samples cannot be read or run.
        """
        ...
