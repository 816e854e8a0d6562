"""A plan holds every tensor once, stays within its budget, and says the least that works."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.collect.plan import Probe, plan, probe
from quantlab.collect.work import Shapes
from quantlab.datasets.base import Batch
from quantlab.errors import ConfigError
from tests.collect.material import TENSORS, activations, images, network

MIB = 1 << 20
NO_SHAPES = Shapes(1, {}, {})
BYTES = st.one_of(st.integers(0, 64 * MIB), st.just(4 * MIB))


@st.composite
def probes(draw: st.DrawFn) -> Probe:
    sizes = draw(st.lists(BYTES, min_size=1, max_size=12))
    return Probe(
        shapes=NO_SHAPES,
        together=draw(st.booleans()),
        fed=draw(st.integers(0, 4 * MIB)),
        tensors={f"t{i}": size for i, size in enumerate(sizes)},
        base=draw(st.integers(1, 500 * MIB)),
        inner=draw(st.integers(0, 32 * MIB)),
    )


BATCHES = st.integers(1, 32)
CORES = st.integers(1, 8)
BUDGETS = st.integers(1, 6000 * MIB)
MORE = st.one_of(st.integers(0, 64 * MIB), st.integers(0, 3000 * MIB))


def least(error: ConfigError) -> int:
    """Return the bytes that the message says would work."""
    said = re.search(r"the least that works is (\d+) MiB", str(error))
    assert said is not None
    return int(said[1]) * MIB


@given(found=probes(), batch=BATCHES, fixed=st.booleans(), cores=CORES, budget=BUDGETS)
def test_every_tensor_is_in_one_pass_and_the_peak_within_the_budget(
    found: Probe, batch: int, cores: int, budget: int, *, fixed: bool
) -> None:
    try:
        made = plan(found, batch=batch, fixed=fixed, cores=cores, budget=budget)
    except ConfigError as error:
        enough = least(error)
        made = plan(found, batch=batch, fixed=fixed, cores=cores, budget=enough)
        with pytest.raises(ConfigError) as raised:
            plan(found, batch=batch, fixed=fixed, cores=cores, budget=enough - MIB)
        assert (raised.value.key, least(raised.value)) == ("max_memory", enough)
        budget = max(budget, enough)
        assert budget == enough, "what was refused is less than what works"
    assert made.peak_bytes <= budget
    assert [name for names in made.passes for name in names] == list(found.tensors)
    assert all(made.passes)
    assert 1 <= made.slice <= batch
    assert made.slice == batch or not fixed
    assert made.slice == 1 or found.together or fixed
    assert 1 <= made.lanes * made.threads <= cores


@given(probes(), BATCHES, CORES, st.tuples(MORE, MORE))
def test_a_smaller_budget_never_takes_fewer_passes(
    found: Probe, batch: int, cores: int, more: tuple[int, int]
) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(found, batch=batch, fixed=False, cores=cores, budget=1)
    small, large = (
        plan(found, batch=batch, fixed=False, cores=cores, budget=least(raised.value) + extra)
        for extra in sorted(more)
    )
    assert len(small.passes) >= len(large.passes)
    assert (small.lanes, small.slice) <= (large.lanes, large.slice)


@given(found=probes(), batch=BATCHES, fixed=st.booleans(), cores=CORES)
def test_without_a_budget_there_is_one_pass_on_all_cores(
    found: Probe, batch: int, cores: int, *, fixed: bool
) -> None:
    made = plan(found, batch=batch, fixed=fixed, cores=cores, budget=None)
    assert made.passes == (tuple(found.tensors),)
    assert (made.lanes, made.threads, made.peak_bytes) == (cores, 1, 0)


def test_slices_go_before_lanes_and_lanes_before_passes() -> None:
    found = Probe(
        NO_SHAPES,
        together=True,
        fed=0,
        tensors=dict.fromkeys("abcdefgh", MIB),
        inner=MIB,
        base=100 * MIB,
    )
    free = plan(found, batch=32, fixed=False, cores=2, budget=4096 * MIB)
    assert (len(free.passes), free.lanes, free.slice) == (1, 2, 2)
    with pytest.raises(ConfigError) as raised:
        plan(found, batch=32, fixed=False, cores=2, budget=1)
    budgets = range(free.peak_bytes, least(raised.value), -MIB // 4)
    steps = [plan(found, batch=32, fixed=False, cores=2, budget=budget) for budget in budgets]
    costs = [(len(step.passes), -step.lanes, -step.slice) for step in steps]
    assert costs == sorted(costs)
    assert {step.slice for step in steps} == {2, 1}
    assert {step.lanes for step in steps} == {2, 1}
    assert {len(step.passes) for step in steps} > {1}
    assert next(step for step in steps if step.lanes == 1).threads == 2


def test_the_largest_tensor_is_named_when_the_budget_does_not_hold_it() -> None:
    found = Probe(
        NO_SHAPES, together=True, fed=0, tensors={"a": MIB, "wide": 64 * MIB}, base=100 * MIB
    )
    with pytest.raises(ConfigError, match=r"'calibration.max_memory'.*100 MiB.*'wide'.*64.0 MiB"):
        plan(found, batch=1, fixed=False, cores=1, budget=200 * MIB)
    larger = replace(found, base=found.base + 64 * MIB)
    with pytest.raises(ConfigError) as raised:
        plan(larger, batch=1, fixed=False, cores=1, budget=200 * MIB)
    assert least(raised.value) > 100 * MIB + 2 * 64 * MIB


@pytest.mark.parametrize("memory_too", [False, True])
def test_a_probe_measures_shapes_and_bytes(tmp_path: Path, *, memory_too: bool) -> None:
    path = network(tmp_path)
    x = images(1)
    batch = Batch({"x": x}, None, np.zeros(1, np.int64))
    found = probe(path, TENSORS, batch, together=True, memory_too=memory_too)
    for samples in (1, 2, 5):
        values = activations(path, TENSORS, {"x": images(samples)})
        assert {t: found.shapes.of(t, samples) for t in TENSORS} == {
            name: array.shape for name, array in values.items()
        }
    assert found.fed == x.nbytes
    assert found.tensors == {
        name: array.nbytes for name, array in activations(path, TENSORS, {"x": x}).items()
    }
    assert (found.base > 0) == memory_too
    assert not list(tmp_path.glob(".*")), "nothing is left beside the model"
