"""The search in worlds whose answer is known: laws, and brute force on few layers."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.errors import ConfigError
from quantlab.findings import Plan, Searched
from quantlab.search.base import Candidate
from quantlab.search.search import search
from tests.search.worlds import Layer, World, costs, decibels, drop, worlds

LIMITS = st.floats(0.0, 3.0)


def chosen(found: Searched) -> Plan:
    return next(plan for plan in found.plans if plan.label == found.chosen)


@settings(max_examples=60, deadline=None)
@given(worlds(80), LIMITS, st.sampled_from([4, 9, 20]))
def test_never_more_builds_than_allowed_and_none_twice(
    world: World, limit: float, builds: int
) -> None:
    found = search(world, world.sensitivities, drop(limit), builds=builds)
    assert len(world.timed) == found.builds <= builds
    assert len(set(world.timed)) == len(world.timed)
    assert len({plan.label for plan in found.plans}) == len(found.plans) == found.builds


@settings(max_examples=60, deadline=None)
@given(worlds(30), LIMITS)
def test_what_is_recommended_meets_the_target_and_int8_is_worth_it(
    world: World, limit: float
) -> None:
    found = search(world, world.sensitivities, drop(limit))
    best = chosen(found)
    assert found.met  # FP32 loses nothing
    assert best.meets
    assert best.accuracy <= limit + 1e-9
    floats = [plan for plan in found.plans if plan.macs_int8 == 0]
    assert best.macs_int8 == 0 or best.latency_ms < min(plan.latency_ms for plan in floats)
    assert best.latency_ms <= 1.03 * min(p.latency_ms for p in found.plans if p.meets)


@settings(max_examples=60, deadline=None)
@given(worlds(30), LIMITS)
def test_a_plan_with_int8_that_meets_is_built_where_one_was_tried(
    world: World, limit: float
) -> None:
    found = search(world, world.sensitivities, drop(limit))
    tried = [world.judge(candidate) for candidate in tuple(world.judged)]
    possible = any(j.macs_int8 > 0 and j.accuracy <= limit for j in tried)
    assert possible == any(plan.meets for plan in found.plans if plan.macs_int8)


@settings(max_examples=40, deadline=None)
@given(worlds(30), LIMITS, st.integers(0, 3))
def test_the_same_seed_gives_the_same_answer(world: World, limit: float, seed: int) -> None:
    one, other = (search(world, world.sensitivities, drop(limit), seed=seed) for _ in range(2))
    assert replace(one, seconds=0) == replace(other, seconds=0)


@settings(max_examples=60, deadline=None)
@given(worlds(30), LIMITS)
def test_the_front_is_what_no_plan_dominates(world: World, limit: float) -> None:
    plans = search(world, world.sensitivities, drop(limit)).plans

    def better(a: Plan, b: Plan) -> bool:
        no_worse = a.latency_ms <= b.latency_ms and a.accuracy <= b.accuracy
        return no_worse and (a.latency_ms, a.accuracy) != (b.latency_ms, b.accuracy)

    for plan in plans:
        if plan.on_front:
            assert not any(better(other, plan) for other in plans)
        else:
            assert any(
                better(other, plan)
                or (other.latency_ms, other.accuracy) == (plan.latency_ms, plan.accuracy)
                for other in plans
                if other.on_front
            )
    assert list(plans) == sorted(plans, key=lambda plan: plan.latency_ms)


@settings(max_examples=60, deadline=None)
@given(worlds(8), LIMITS)
def test_the_recommendation_is_near_the_best_of_all_plans(world: World, limit: float) -> None:
    world = replace(world, reformat=0.0, told=True)
    found = chosen(search(world, world.sensitivities, drop(limit)))
    every = [
        costs(world, dict(enumerate(real)))
        for real in product([False, True], repeat=len(world.layers))
        if not all(real)
    ]
    floats = [world.ms(Candidate("fp32")), world.ms(Candidate("fp16"))]
    optimum = min([ms for loss, ms in every if loss <= limit] + floats)
    assert found.latency_ms <= 1.15 * optimum


def test_a_missed_target_gives_the_best_found() -> None:
    world = World(tuple(Layer(0.1, 1, 0.6, 0.3) for _ in range(5)))
    found = search(world, world.sensitivities, decibels(3.0))
    assert not found.met
    assert not any(plan.meets for plan in found.plans)
    assert chosen(found).accuracy == max(plan.accuracy for plan in found.plans)
    assert "no plan meets sqnr 3" in found.reason


def test_int8_slower_than_fp16_is_passed_over_and_the_reason_says_so() -> None:
    world = World(tuple(Layer(0.0, 1, 0.5, 0.7) for _ in range(5)))
    found = search(world, world.sensitivities, drop(0.5))
    assert found.chosen == "fp16"
    assert found.reason.startswith("INT8 is no faster: int8 but 4, the fastest plan with")


def test_a_costly_layer_alone_leaves_int8() -> None:
    layers = [Layer(0.01, 1, 0.5, 0.25) for _ in range(60)]
    layers[17] = Layer(5.0, 1, 0.5, 0.25)
    world = World(tuple(layers))
    found = search(world, world.sensitivities, drop(1.0))
    best = chosen(found)
    assert best.floats == (("n17", "fp16"),)
    assert best.label == "int8 but 1"
    assert best.macs_int8 > 0.98
    assert "is 1.9" in found.reason


def saving(*layers: tuple[float, float]) -> World:
    """Layers by loss and by the ms that INT8 saves, and two that lose nothing."""
    every = (*layers, (0.0, 0.3), (0.0, 0.3))
    return World(tuple(Layer(loss, 9, 0.1 + ms, 0.1) for loss, ms in every))


def test_a_layer_returns_that_left_before_a_costlier_one() -> None:
    """By cost n0 leaves before n1, which suffices alone; by error n2 leaves, at a high price."""
    world = saving((0.45, 0.2), (0.5, 0.5), (0.55, 10))
    found = search(world, world.sensitivities, drop(1.0))
    assert chosen(found).floats == (("n1", "fp16"),)


def test_a_layer_is_exchanged_for_one_that_costs_less_time() -> None:
    """Both orders begin with n0; n1 suffices too, and saves less time."""
    world = saving((1.0, 0.5), (0.6, 0.35))
    found = search(world, world.sensitivities, drop(1.0))
    assert chosen(found).floats == (("n1", "fp16"),)


def test_layers_that_int8_makes_slower_leave_it_although_the_target_is_met() -> None:
    layers = [Layer(0.0, 1, 0.5, 0.25) for _ in range(6)]
    layers[2] = Layer(0.0, 1, 0.5, 0.9)
    found = search(world := World(tuple(layers)), world.sensitivities, drop(1.0))
    assert chosen(found).floats == (("n2", "fp16"),)


def test_conversions_decide_by_measured_time() -> None:
    """Between INT8 layers, a float layer costs more than INT8 does, though it is faster alone."""
    layers = [Layer(0.0, 1, 0.5, 0.25) for _ in range(6)]
    layers[2] = Layer(0.0, 1, 0.5, 0.6)
    world = World(tuple(layers), reformat=0.3)
    found = search(world, world.sensitivities, drop(1.0))
    assert found.chosen == "int8"
    assert found.builds > 3


def test_what_fp16_breaks_is_fp32_in_every_plan() -> None:
    layers = tuple(Layer(0.6 if i == 1 else 0.0, 1, 0.5, 0.25) for i in range(6))
    world = World(layers, broken=frozenset({1}))
    found = search(world, world.sensitivities, drop(0.5))
    fp16 = next(plan for plan in found.plans if plan.label == "fp16")
    assert not fp16.meets
    assert not fp16.on_front
    assert chosen(found).floats == (("n1", "fp32"),)
    assert any(plan.label == "fp16 but 1" and plan.meets for plan in found.plans)


def test_fp32_is_not_used_where_fp16_serves() -> None:
    world = World(tuple(Layer(0.3, 1, 0.5, 0.25) for _ in range(6)))
    found = search(world, world.sensitivities, drop(0.7))
    assert {kind for plan in found.plans for _, kind in plan.floats} == {"fp16"}


def test_without_sensitivities_every_layer_is_tried() -> None:
    world = World(tuple(Layer(0.1 * i, 1, 0.5, 0.25) for i in range(6)))
    found = search(world, [], drop(0.7))
    assert found.met
    assert chosen(found).macs_int8 > 0


def test_too_few_builds_are_an_error() -> None:
    world = World((Layer(0, 1, 1, 1), Layer(0, 1, 1, 1)))
    with pytest.raises(ConfigError, match="may build 3 engines, and fp32, fp16, int8 alone take 3"):
        search(world, [], drop(0.7), builds=3)


def test_a_coarse_metric_is_said() -> None:
    world = World((Layer(0, 1, 1, 0.5), Layer(0, 1, 1, 0.5)), step=1.0)
    reason = search(world, [], drop(0.7)).reason
    assert reason.endswith("; one of the 100 samples held back is 1 % of top1")
