"""Choosing thresholds by what comes out of the network: a method for all, then tensor by tensor.

A tensor's own error misleads: clipping that costs a tensor little can cost the network much, and
the other way round.  So each calibrator's thresholds are judged at the network's output.  Then
every tensor is given, alone, what another calibrator would give it; what helps is put together, as
many of the best as help together, until a round brings less than ``LEAST_GAIN``.  Of some hundred
changes the best is also the luckiest, so what is put together is judged on other batches than those
that single changes were looked at with.

Cost: one pass over the samples for the methods; a round is one pass over ``SCREENED`` samples with
every change, and one over all of them with the few combinations.  Thresholds are run-time inputs,
so nothing is compiled again.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from quantlab.calibrators import Calibrator
from quantlab.calibrators.entropy import Entropy
from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.mse import Mse
from quantlab.calibrators.percentile import Percentile
from quantlab.decide import decide, joined
from quantlab.findings import CHOOSE, Trial
from quantlab.graph.placement import Placement
from quantlab.histogram import Histogram
from quantlab.records import TensorThreshold, Thresholds
from quantlab.repair.layers import first
from quantlab.simulate import Batches, Draft, Judge, decibels, gain

CANDIDATES: Mapping[str, Calibrator] = {
    "mse": Mse(),
    "percentile 99.99": Percentile(99.99),
    "percentile 99.999": Percentile(99.999),
    "percentile 99.9": Percentile(99.9),
    "minmax": MinMax(),
    "entropy": Entropy(),
}
"""Calibrators that ``auto`` chooses from; of equals the first."""

SCREENED = 32
"""Samples that single changes are looked at with."""

LEAST_GAIN = 0.1
"""dB at the network's output below which a change is not worth its place."""

ALIKE = 0.05
"""Thresholds this close, relatively, are one."""

ROUNDS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The thresholds chosen, their error at the network's output, and what was tried."""

    thresholds: Thresholds
    error: float
    trials: tuple[Trial, ...]


def candidates(
    histograms: Mapping[str, Histogram], ties: Iterable[tuple[str, ...]]
) -> dict[str, dict[str, TensorThreshold]]:
    """Return each candidate's thresholds, by its label."""
    groups = list(ties)
    return {
        label: decide(histograms, calibrator, method=label, ties=groups)
        for label, calibrator in CANDIDATES.items()
    }


def choose_method(draft: Draft, judge: Judge, ties: Iterable[tuple[str, ...]] = ()) -> Chosen:
    """Return the thresholds of the candidate that is best for all tensors.

    Args:
        draft: its own thresholds are not among the candidates.
        judge: on the samples held back.
        ties: groups of tensors with one threshold.
    """
    started = time.perf_counter()
    found = candidates(draft.histograms, ties)
    simulated = draft.simulated()
    errors = judge.errors([(simulated, thresholds) for thresholds in found.values()])
    best = min(range(len(errors)), key=errors.__getitem__)
    seconds = (time.perf_counter() - started) / len(found)
    first = decibels(errors[0])
    trials = [
        Trial(CHOOSE, f"{name} for every tensor", first, decibels(e), i == best, seconds)
        for i, (name, e) in enumerate(zip(found, errors, strict=True))
    ]
    return Chosen(list(found.values())[best], errors[best], tuple(trials))


def choose_tensors(
    draft: Draft, judge: Judge, error: float, ties: Iterable[tuple[str, ...]] = ()
) -> Chosen:
    """Return the thresholds of ``draft`` with other candidates' for single tensors, where it pays.

    Args:
        draft: with the thresholds to begin with.
        judge: on the samples held back.
        error: of the draft, by ``judge``.
        ties: groups of tensors with one threshold.
    """
    groups, current = list(ties), draft.thresholds
    found = candidates(draft.histograms, groups)
    simulated = draft.simulated()
    units = _units(draft.placement, groups)
    some, others = _halves(judge.batches)
    few = replace(judge, batches=lambda: first(some, SCREENED))
    rest = replace(judge, batches=others)
    trials: list[Trial] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        changes = list(_changes(units, found, current))
        variants = [current, *({**current, **change} for change in changes)]
        alone = few.errors([(simulated, thresholds) for thresholds in variants])
        ranked = _best_of_each(changes, alone[1:], alone[0])
        if not ranked:
            break
        sets = [_joined(ranked[:count]) for count in _counts(len(ranked))]
        variants = [current, *({**current, **change} for change in sets)]
        before, *after = rest.errors([(simulated, thresholds) for thresholds in variants])
        index = min(range(len(sets)), key=after.__getitem__)
        new = judge.errors([(simulated, {**current, **sets[index]})])[0]
        gained = gain(before, after[index]) >= LEAST_GAIN and new < error
        trials.append(
            Trial(
                CHOOSE,
                f"another method for {len(sets[index])} of {len(draft.placement.tensors)} tensors",
                decibels(error),
                decibels(new),
                gained,
                time.perf_counter() - started,
                _told(sets[index]) if gained else "",
            )
        )
        if not gained:
            break
        current, error = {**current, **sets[index]}, new
    return Chosen(current, error, tuple(trials))


Change = dict[str, TensorThreshold]
"""Thresholds of a tensor and of those tied to it."""


def _halves(batches: Batches) -> tuple[Batches, Batches]:
    """Return every second batch, and the others; all of them twice where there is only one."""
    if len(list(islice(batches(), 2))) < 2:
        return batches, batches
    return lambda: islice(batches(), 0, None, 2), lambda: islice(batches(), 1, None, 2)


def _units(placement: Placement, ties: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the quantized tensors, those that are tied together."""
    tied = {name: group for group in joined(ties) for name in group}
    return list(dict.fromkeys(tied.get(name, (name,)) for name in placement.tensors))


def _changes(
    units: Sequence[tuple[str, ...]],
    found: Mapping[str, Mapping[str, TensorThreshold]],
    current: Thresholds,
) -> Iterator[Change]:
    """Yield what other candidates give each unit, thresholds that are alike once."""
    for unit in units:
        known = [current[unit[0]].threshold]
        for thresholds in found.values():
            value = thresholds[unit[0]].threshold
            if all(abs(value - other) > ALIKE * max(value, other) for other in known):
                known.append(value)
                yield {name: thresholds[name] for name in unit if name in thresholds}


def _best_of_each(
    changes: Sequence[Change], errors: Sequence[float], before: float
) -> list[Change]:
    """Return the best change of each unit, where it helps, those that help most first."""
    best: dict[str, tuple[float, Change]] = {}
    for change, error in zip(changes, errors, strict=True):
        unit = next(iter(change))
        if error < before and (unit not in best or error < best[unit][0]):
            best[unit] = (error, change)
    return [change for _, change in sorted(best.values(), key=lambda pair: pair[0])]


def _counts(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to all."""
    counts = [1 << power for power in range(most.bit_length())]
    return sorted({*(c for c in counts if c <= most), *((most,) if most else ())})


def _joined(changes: Iterable[Change]) -> Change:
    return {name: value for change in changes for name, value in change.items()}


def _told(change: Change, most: int = 4) -> str:
    parts = [f"{name}: {value.method}" for name, value in islice(change.items(), most)]
    more = f" and {len(change) - most} more" if len(change) > most else ""
    return ", ".join(parts) + more
