"""Repairing a draft: each repair in the order of cost, judged at the network's output.

With ``auto`` a repair stays if it gains at least ``LEAST_GAIN`` on the samples held back, and those
that cost speed are tried only where INT8 still misses a target; repairs that the config names stay
whatever they gain, and the gain is recorded.  The time of a trial holds the proposal and its
judging.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from quantlab.findings import Repaired, Trial
from quantlab.repair.base import Bench, Proposal, Repair
from quantlab.repair.choose import Chosen, choose_method, choose_tensors
from quantlab.simulate import Draft, Judge, decibels, gain

LEAST_GAIN = 0.1
"""dB at the network's output that ``auto`` keeps a repair for."""

Choice = Callable[[Draft, Judge, Iterable[tuple[str, ...]]], Chosen]
"""A way of choosing thresholds."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What is to be done.

    Attributes:
        rescaling: repairs that keep the FP32 function, in the order in which they are tried.
        correcting: repairs for INT8 alone, after them.
        costly: repairs that cost speed, last; with each the corrections are made anew.
        choose: whether thresholds are chosen among all calibrators.
        only_gains: whether a repair stays only if it gains.
        ties: the groups of a float model's tensors that share a threshold, for choosing.
        misses: whether a draft misses a target of the config.
    """

    rescaling: Sequence[Repair]
    correcting: Sequence[Repair]
    costly: Sequence[Repair]
    choose: bool
    only_gains: bool
    ties: Callable[[ir.Model], Iterable[tuple[str, ...]]]
    misses: Callable[[Draft], bool]


@dataclass(slots=True, eq=False)
class Tuning:
    """A draft on its way; mutable on purpose: trials add up.

    Attributes:
        draft: the best so far.
        bench: what repairs work with.
        judge: on the samples held back.
        order: what is to be done.
        tell: receives what is being tried.
        trials: all of them, in order.
        error: of the draft; None where it was not judged since it changed.
    """

    draft: Draft
    bench: Bench
    judge: Judge
    order: Order
    tell: Callable[[str], None]
    trials: list[Trial] = field(default_factory=list)
    error: float | None = None

    def run(self) -> None:
        """Try everything.

        Single tensors get other thresholds when their ranges are settled; corrections, which make
        up for thresholds, come behind that, and what costs speed last.

        Raises:
            QuantlabError: samples cannot be read or run.
        """
        self._choose(choose_method, "every method for all tensors")
        for repair in self.order.rescaling:
            if self._try(repair):  # other ranges may want another method
                self._choose(choose_method, "every method for all tensors")
        self._choose(choose_tensors, "other methods for single tensors")
        for repair in self.order.correcting:
            self._try(repair)
        for repair in self.order.costly:
            if not self.order.only_gains or self.order.misses(self.draft):
                self._try(repair, anew=self.order.correcting)

    def _choose(self, choice: Choice, what: str) -> None:
        if self.order.choose:
            self.tell(f"auto: trying {what}")
            found = choice(self.draft, self.judge, self.order.ties(self.draft.model))
            self.trials.extend(found.trials)
            self.draft, self.error = replace(self.draft, thresholds=found.thresholds), None

    def _try(self, repair: Repair, anew: Sequence[Repair] = ()) -> bool:
        """Try a repair, and behind it those to be done anew; return whether it stays."""
        self.tell(f"repair: trying {repair.name}")
        started = time.perf_counter()
        proposal = repair.propose(self.draft, self.bench)
        if self.error is None:
            self.error = self._judged(self.draft)
        before = after = self.error
        kept = False
        if proposal.draft is not None:
            proposal, after = self._corrected(proposal.draft, proposal.note, anew)
            kept = not self.order.only_gains or gain(before, after) >= LEAST_GAIN
        seconds = time.perf_counter() - started
        told = decibels(before), decibels(after)
        self.trials.append(Trial(repair.name, repair.about, *told, kept, seconds, proposal.note))
        if proposal.draft is not None and kept:
            self.draft, self.error = proposal.draft, after
        return kept

    def _corrected(
        self, draft: Draft, note: str, repairs: Sequence[Repair]
    ) -> tuple[Proposal, float]:
        """Return a draft with the repairs that help it, and its error."""
        own = Tuning(draft, self.bench, self.judge, self.order, self.tell)
        for repair in repairs:
            own._try(repair)
        done = [trial.repair for trial in own.trials if trial.kept]
        told = f"{note}; anew: {', '.join(done)}" if done else note
        error = self._judged(draft) if own.error is None else own.error
        return Proposal(own.draft, told), error

    def _judged(self, draft: Draft) -> float:
        return self.judge.errors([(draft.simulated(), draft.thresholds)])[0]


def record(held_back: int, trials: tuple[Trial, ...]) -> Repaired:
    """Return the trials with what they gained altogether."""
    kept = [trial for trial in trials if trial.kept]
    return Repaired(
        held_back=held_back,
        before_db=trials[0].before_db if trials else None,
        after_db=kept[-1].after_db if kept else (trials[0].before_db if trials else None),
        trials=trials,
    )
