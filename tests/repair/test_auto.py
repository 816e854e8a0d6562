"""The loop over repairs: what gains stays, what does not goes, and everything is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantlab.calibrators.mse import Mse
from quantlab.decide import decide
from quantlab.engines.ort_session import run
from quantlab.findings import Trial
from quantlab.graph.passes import copy
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
from quantlab.histogram import Histogram, from_array
from quantlab.records import Thresholds
from quantlab.repair.auto import Order, Tuning, record
from quantlab.repair.base import Bench, Proposal, Repair
from quantlab.simulate import Arrays, Draft, Judge, session
from tests.models import residual

FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class Scaled:
    """Multiplies every threshold."""

    factor: float
    name: ClassVar[str] = "scaled"
    about: ClassVar[str] = "other thresholds"

    def propose(self, draft: Draft, _: Bench) -> Proposal:
        thresholds = {
            name: replace(one, threshold=one.threshold * self.factor)
            for name, one in draft.thresholds.items()
        }
        return Proposal(replace(draft, thresholds=thresholds), f"times {self.factor}")


@dataclass(frozen=True, slots=True)
class Idle:
    """Finds nothing to do."""

    name: ClassVar[str] = "idle"
    about: ClassVar[str] = "nothing"

    def propose(self, _: Draft, __: Bench) -> Proposal:
        return Proposal(None, "nothing to mend")


@dataclass(frozen=True, slots=True)
class Moved:
    """Hands back an equal model, collected anew."""

    name: ClassVar[str] = "moved"
    about: ClassVar[str] = "an equal model"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        return Proposal(bench.redraft(draft, copy(draft.model)), "an equal model")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    draft: Draft
    bench: Bench
    judge: Judge


@pytest.fixture(scope="module")
def case() -> Case:
    model = prepare(ir.from_proto(residual())).model
    rng = np.random.default_rng(0)
    fit, held = (rng.normal(size=(n, 1, 8, 8)).astype(np.float32) for n in (64, 32))

    def batches(array: NDArray[np.float32]) -> Iterator[Arrays]:
        for start in range(0, len(array), 16):
            yield {"x": array[start : start + 16]}

    def collect(found: ir.Model, tensors: Sequence[str]) -> Mapping[str, Histogram]:
        names = [name for name in tensors if name != "x"]
        values = {"x": fit} | run(session(tap(found, names)), names, {"x": fit})
        return {name: from_array(name, values[name]) for name in tensors}

    def decided(found: ir.Model, histograms: Mapping[str, Histogram]) -> Thresholds:
        return decide(histograms, Mse(), method="mse", ties=place(found).ties)

    placement = place(model)
    histograms = collect(model, placement.tensors)
    draft = Draft(model, "tensorrt", placement, histograms, decided(model, histograms))
    bench = Bench(lambda: batches(fit), collect, decided, lambda *_: {})
    return Case(draft, bench, Judge.make(model, lambda: batches(held)))


def tried(
    case: Case,
    *repairs: Repair,
    only_gains: bool = True,
    choose: bool = False,
    start: float = 1.0,
    correcting: Sequence[Repair] = (),
    costly: Sequence[Repair] = (),
    missed: bool = False,
) -> tuple[Draft, tuple[Trial, ...], list[str]]:
    first = Scaled(start).propose(case.draft, case.bench).draft
    assert first is not None
    order = Order(
        rescaling=repairs,
        correcting=correcting,
        costly=costly,
        choose=choose,
        only_gains=only_gains,
        ties=lambda model: place(model).ties,
        misses=lambda _: missed,
    )
    said: list[str] = []
    tuning = Tuning(first, case.bench, case.judge, order, said.append)
    tuning.run()
    return tuning.draft, tuple(tuning.trials), said


def gain(trial: Trial) -> float:
    assert trial.before_db is not None
    assert trial.after_db is not None
    return trial.after_db - trial.before_db


def test_keeps_what_gains_and_drops_what_harms(case: Case) -> None:
    best, trials, said = tried(case, Scaled(1 / 8), Idle(), Scaled(1 / 3), start=8.0)
    assert [t.kept for t in trials] == [True, False, False]
    assert [t.note for t in trials] == ["times 0.125", "nothing to mend", f"times {1 / 3}"]
    name = case.draft.placement.tensors[0]
    assert best.thresholds[name].threshold == pytest.approx(case.draft.thresholds[name].threshold)
    assert gain(trials[0]) > 10
    assert trials[1].before_db == trials[1].after_db == trials[0].after_db
    assert gain(trials[2]) < 0
    assert [text for text in said if "idle" in text]


def test_repairs_that_were_named_stay_whatever_they_gain(case: Case) -> None:
    best, trials, _ = tried(case, Scaled(FACTOR), only_gains=False)
    assert trials[0].kept
    assert gain(trials[0]) < 0
    name = case.draft.placement.tensors[0]
    assert best.thresholds[name].threshold > case.draft.thresholds[name].threshold


def test_a_model_that_moved_is_collected_and_chosen_anew(case: Case) -> None:
    best, trials, _ = tried(case, Moved(), only_gains=False, choose=True)
    assert best.model is not case.draft.model
    assert set(best.histograms) == set(case.draft.histograms)
    moved = next(trial for trial in trials if trial.repair == "moved")
    method = next(t for t in trials if t.repair == "choose" and t.kept)
    assert method.what.startswith(moved.note.removeprefix("an equal model; thresholds by "))
    assert moved.before_db == method.after_db == moved.after_db  # the model is an equal one


def test_what_costs_speed_is_tried_where_a_target_is_missed(case: Case) -> None:
    eighth = [Scaled(1 / 8)]
    name = case.draft.placement.tensors[0]
    wanted = case.draft.thresholds[name].threshold
    best, trials, _ = tried(case, costly=eighth, start=8.0, missed=True)
    assert [trial.kept for trial in trials] == [True]
    assert best.thresholds[name].threshold == pytest.approx(wanted)
    best, trials, _ = tried(case, costly=eighth, start=8.0)
    assert not trials
    assert best.thresholds[name].threshold == pytest.approx(8 * wanted)


def test_what_costs_speed_is_done_where_it_is_named(case: Case) -> None:
    assert tried(case, costly=[Scaled(FACTOR)], only_gains=False)[1][0].kept


def test_single_tensors_are_chosen_again_behind_what_costs_speed(case: Case) -> None:
    best, trials, _ = tried(case, costly=[Scaled(2.0)], only_gains=False, choose=True)
    at = [trial.repair for trial in trials].index("scaled")
    again = [trial for trial in trials[at + 1 :] if trial.kept]
    assert again
    assert again[0].before_db == trials[at].after_db
    assert again[-1].after_db == record(32, trials).after_db
    assert case.judge.errors([(best.simulated(), best.thresholds)])[0] == pytest.approx(
        10 ** (-(again[-1].after_db or 0) / 10)
    )


def test_corrections_are_made_anew_behind_what_costs_speed(case: Case) -> None:
    best, trials, _ = tried(
        case, correcting=[Scaled(1 / 4), Idle()], costly=[Scaled(2.0)], start=4.0, missed=True
    )
    # 4 / 4 = 1; then 1 x 2, which a quarter does not help: not kept.
    assert [(t.repair, t.kept) for t in trials] == [
        ("scaled", True),
        ("idle", False),
        ("scaled", False),
    ]
    _, trials, _ = tried(
        case, correcting=[Scaled(1 / 4)], costly=[Scaled(4.0)], only_gains=False, missed=True
    )
    assert trials[-1].note == "times 4.0; anew: scaled"
    assert best.thresholds


def test_the_record_tells_first_and_last(case: Case) -> None:
    _, trials, _ = tried(case, Scaled(1 / 8), Scaled(1 / 3), start=8.0)
    found = record(32, trials)
    assert (found.before_db, found.after_db) == (trials[0].before_db, trials[0].after_db)
    nothing = record(32, tried(case, Idle())[1])
    assert nothing.before_db == nothing.after_db is not None
    assert record(32, ()).before_db is None
