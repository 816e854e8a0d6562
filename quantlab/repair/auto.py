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
from quantlab.repair.base import Bench, Repair
from quantlab.repair.choose import (
    LEAST_GAIN,
    Chosen,
    choose_method,
    choose_tensors,
)
from quantlab.simulate import Draft, Judge, decibels, gain


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A proposed draft as it is judged, with what was done to it, and its error."""

    draft: Draft
    note: str
    error: float


Settle = Callable[[Draft, str], Settled]
"""What is done to a proposal before it is judged, from its draft and its note."""


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
        up for thresholds, come behind that, and what costs speed last, with single tensors' again.

        Raises:
            QuantlabError: samples cannot be read or run.
        """
        if self.order.choose:
            self.tell("auto: trying every method for all tensors")
            self._take(choose_method(self.draft, self.judge, self._ties(self.draft)))
        for repair in self.order.rescaling:
            self._try(repair, self._with_method)
        self._choose_tensors()
        for repair in self.order.correcting:
            self._try(repair, self._as_it_is)
        for repair in self.order.costly:
            asked = not self.order.only_gains or self.order.misses(self.draft)
            if asked and self._try(repair, self._corrected):
                self._choose_tensors()  # its ranges are others

    def _choose_tensors(self) -> None:
        if self.order.choose:
            self.tell("auto: trying other methods for single tensors")
            ties = self._ties(self.draft)
            self._take(choose_tensors(self.draft, self.judge, self._known(), ties))

    def _take(self, found: Chosen) -> None:
        self.trials.extend(found.trials)
        self.draft, self.error = replace(self.draft, thresholds=found.thresholds), found.error

    def _try(self, repair: Repair, settle: Settle) -> bool:
        """Try a repair, settled; return whether it stays."""
        self.tell(f"repair: trying {repair.name}")
        started = time.perf_counter()
        proposal = repair.propose(self.draft, self.bench)
        before = self._known()
        found, kept = Settled(self.draft, proposal.note, before), False
        if proposal.draft is not None:
            found = settle(proposal.draft, proposal.note)
            kept = not self.order.only_gains or gain(before, found.error) >= LEAST_GAIN
        seconds = time.perf_counter() - started
        told = decibels(before), decibels(found.error)
        self.trials.append(Trial(repair.name, repair.about, *told, kept, seconds, found.note))
        if kept:
            self.draft, self.error = found.draft, found.error
        return kept

    def _as_it_is(self, draft: Draft, note: str) -> Settled:
        return Settled(draft, note, self._judged(draft))

    def _with_method(self, draft: Draft, note: str) -> Settled:
        """Choose the method anew, since other ranges may want another."""
        if not self.order.choose:
            return self._as_it_is(draft, note)
        found = choose_method(draft, self.judge, self._ties(draft))
        method = next(one.method for one in found.thresholds.values())  # one for all
        told = f"{note}; thresholds by {method}"
        return Settled(replace(draft, thresholds=found.thresholds), told, found.error)

    def _corrected(self, draft: Draft, note: str) -> Settled:
        """Make those corrections anew that help."""
        own = Tuning(draft, self.bench, self.judge, self.order, self.tell)
        for repair in self.order.correcting:
            own._try(repair, own._as_it_is)
        done = [trial.repair for trial in own.trials if trial.kept]
        told = f"{note}; anew: {', '.join(done)}" if done else note
        return Settled(own.draft, told, own._known())

    def _ties(self, draft: Draft) -> Iterable[tuple[str, ...]]:
        return self.order.ties(draft.model)

    def _known(self) -> float:
        """Return the draft's error, judging it where it is not known."""
        if self.error is None:
            self.error = self._judged(self.draft)
        return self.error

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
