"""Thresholds by what comes out: a network where its own error misleads for each tensor."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantlab.decide import decide
from quantlab.engines.ort_session import run
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
from quantlab.histogram import from_array
from quantlab.repair.choose import (
    CANDIDATES,
    Chosen,
    candidates,
    choose_method,
    choose_tensors,
)
from quantlab.simulate import Draft, Judge, session
from tests.models import Net

CHANNELS = 16
Arrays = Mapping[str, NDArray[np.float32]]


def branch(net: Net, name: str, *, heeded: int) -> tuple[str, str]:
    """Return input and output of a product that reads only the channels from ``heeded`` on."""
    x = net.input(name, shape=("N", CHANNELS))
    weights = net.rng.normal(size=(CHANNELS, CHANNELS)).astype(np.float32)
    weights[:heeded] = 0
    return x, net.add("MatMul", [x, net.weight(f"{name}.weight", weights)], name=f"{name}.product")


def samples(*, seed: int, count: int) -> dict[str, NDArray[np.float32]]:
    """Return inputs whose last channel is rare and a hundred times the rest."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in ("tail", "bulk"):
        x = rng.normal(size=(count, CHANNELS)).astype(np.float32)
        x[:, -1] = np.where(rng.random(count) < 0.01, 300.0, 0.0)
        found[name] = x
    return found


def draft() -> Draft:
    """Return two branches: one depends on the rare large channel alone, the other on the rest."""
    net = Net()
    _, tail = branch(net, "tail", heeded=CHANNELS - 1)
    _, bulk = branch(net, "bulk", heeded=0)
    weights = net.weights["bulk.weight"]
    array = np.frombuffer(weights.raw_data, np.float32).reshape(CHANNELS, CHANNELS).copy()
    array[-1] = 0
    net.weight("bulk.weight", array)
    model = prepare(ir.from_proto(net.finish(tail, bulk))).model
    placement = place(model)
    given = samples(seed=0, count=4096)
    histograms = {name: from_array(name, given[name]) for name in placement.tensors}
    thresholds = decide(histograms, CANDIDATES["mse"], method="mse")
    return Draft(model, "tensorrt", placement, histograms, thresholds)


def choose(made: Draft, judge: Judge, ties: tuple[tuple[str, ...], ...] = ()) -> Chosen:
    """Choose a method, then other thresholds for single tensors."""
    first = choose_method(made, judge, ties)
    better = replace(made, thresholds=first.thresholds)
    then = choose_tensors(better, judge, first.error, ties)
    return Chosen(then.thresholds, then.error, (*first.trials, *then.trials))


@pytest.fixture(scope="module")
def case() -> tuple[Draft, Judge]:
    made = draft()
    held = samples(seed=1, count=512)

    def batches():  # type: ignore[no-untyped-def]
        for start in range(0, 512, 64):
            yield {name: array[start : start + 64] for name, array in held.items()}

    return made, Judge.make(made.model, batches)


def test_each_tensor_gets_what_the_network_needs_of_it(case: tuple[Draft, Judge]) -> None:
    made, judge = case
    found = choose(made, judge)
    assert found.thresholds["tail"].threshold > 250
    assert found.thresholds["bulk"].threshold < 50
    compiled = made.simulated()
    single = judge.errors([(compiled, t) for t in candidates(made.histograms, ()).values()])
    chosen = judge.errors([(compiled, found.thresholds)])[0]
    assert chosen < 0.5 * min(single), "no one method suits both"


def test_what_was_tried_is_told_in_order(case: tuple[Draft, Judge]) -> None:
    made, judge = case
    trials = choose(made, judge).trials
    assert [t.what for t in trials[: len(CANDIDATES)]] == [
        f"{name} for every tensor" for name in CANDIDATES
    ]
    kept = [t for t in trials if t.kept]
    assert len([t for t in trials[: len(CANDIDATES)] if t.kept]) == 1
    gained = [t.after_db for t in kept]
    assert gained == sorted(gained, key=lambda db: db or 0.0)
    assert len(set(gained)) == len(gained)
    assert "bulk: " in kept[-1].note or "tail: " in kept[-1].note


def test_is_deterministic(case: tuple[Draft, Judge]) -> None:
    made, judge = case
    assert choose(made, judge).thresholds == choose(made, judge).thresholds


def test_tied_tensors_change_together(case: tuple[Draft, Judge]) -> None:
    made, judge = case
    found = choose(made, judge, (("tail", "bulk"),)).thresholds
    assert found["tail"].threshold == found["bulk"].threshold


def test_the_error_is_that_of_the_thresholds(case: tuple[Draft, Judge]) -> None:
    made, judge = case
    for found in (choose_method(made, judge), choose(made, judge)):
        wanted = judge.errors([(made.simulated(), found.thresholds)])[0]
        assert found.error == pytest.approx(wanted, rel=1e-6)


def test_a_network_that_no_method_changes_keeps_the_first() -> None:
    net = Net()
    x = net.input(shape=("N", CHANNELS))
    product = net.add("MatMul", [x, net.random("w", (CHANNELS, CHANNELS))], name="product")
    model = prepare(ir.from_proto(net.finish(product))).model
    constant = {"x": np.full((64, CHANNELS), 2.0, np.float32)}
    histogram = from_array("x", constant["x"])
    made = Draft(model, "tensorrt", place(model), {"x": histogram}, {})
    made = replace(made, thresholds=decide(made.histograms, CANDIDATES["mse"], method="mse"))
    found = choose(made, Judge.make(model, lambda: iter([constant])))
    assert found.thresholds["x"].method == "mse"
    assert run(session(tap(model, [])), ["product_out"], constant)["product_out"].shape == (64, 16)
