"""Speed is measured as stated: on a clock that the test turns, every number is known."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.base import Array
from quantlab.errors import ConfigError
from quantlab.measured import Performance
from quantlab.performance import Schedule, measure, summarize
from quantlab.records import EngineInfo, Precision

INPUTS = {"x": np.zeros((1, 2), np.float32)}


@dataclass
class World:
    """A clock and who ran when."""

    now: float = 0.0
    ran: list[Precision] = field(default_factory=list)

    def clock(self) -> float:
        return self.now


@dataclass
class Simulated:
    """An engine whose inference takes what ``cost`` says, on the world's clock."""

    world: World
    precision: Precision
    cost: Callable[[World], float]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        seconds = self.cost(self.world)
        self.world.ran.append(self.precision)
        self.world.now += seconds
        return dict(inputs)

    def describe(self) -> EngineInfo:
        raise NotImplementedError("measurement does not ask")


def simulate(
    schedule: Schedule, **costs: Callable[[World], float]
) -> tuple[dict[Precision, tuple[Performance, ...]], World]:
    world = World()
    names: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    runners = {p: Simulated(world, p, costs[p]) for p in names if p in costs}
    return measure(runners, lambda _: INPUTS, schedule=schedule, clock=world.clock), world


def steady(seconds: float) -> Callable[[World], float]:
    return lambda _: seconds


def nearest_rank(latencies: list[float], percent: int) -> float:
    """The least latency that at least ``percent`` % of the inferences did not exceed."""
    ordered = sorted(latencies)
    return next(x for i, x in enumerate(ordered, 1) if 100 * i >= percent * len(ordered))


durations = st.lists(st.integers(1, 1000).map(lambda us: us / 2**20), min_size=10, max_size=150)


@given(durations)
def test_percentiles_are_nearest_ranks_and_the_median_averages_the_middle(
    latencies: list[float],
) -> None:
    (got,) = summarize({"fp32": [latencies[:4], latencies[4:]]}, 1).values()
    ordered, n = sorted(latencies), len(latencies)
    assert got.p50_ms == pytest.approx(1000 * (ordered[(n - 1) // 2] + ordered[n // 2]) / 2)
    assert got.p90_ms == 1000 * nearest_rank(latencies, 90)
    assert got.p99_ms == 1000 * nearest_rank(latencies, 99)
    assert (got.inferences, got.rounds) == (n, 2)


@given(durations, st.integers(1, 64))
def test_throughput_is_samples_over_seconds_within_its_interval(
    latencies: list[float], batch: int
) -> None:
    rounds = [latencies[i : i + 5] for i in range(0, len(latencies), 5)]
    (got,) = summarize({"fp32": rounds}, batch).values()
    assert got.throughput == pytest.approx(batch * len(latencies) / math.fsum(latencies))
    slowest, fastest = 1 / max(latencies), 1 / min(latencies)
    assert batch * slowest * (1 - 1e-9) <= got.throughput_low <= got.throughput
    assert got.throughput <= got.throughput_high <= batch * fastest * (1 + 1e-9)


@given(st.floats(0.1, 20), st.floats(1e-4, 0.05), st.integers(1, 12), st.sampled_from([1, 32]))
def test_an_engine_k_times_as_fast_has_speedup_k(
    k: float, seconds: float, rounds: int, batch: int
) -> None:
    schedule = Schedule((batch,), seconds=0.1, rounds=rounds, warmup_seconds=0.0)
    results, _ = simulate(schedule, fp32=steady(seconds), int8=steady(seconds / k))
    (fp32,), (int8,) = results["fp32"], results["int8"]
    assert fp32.speedup is None
    assert int8.speedup is not None
    # The clock adds up thousands of small steps, each rounded.
    assert (int8.speedup.low, int8.speedup.value, int8.speedup.high) == pytest.approx(
        (k, k, k), rel=1e-6
    )
    assert int8.throughput == pytest.approx(batch * k / seconds, rel=1e-6)


@given(st.integers(0, 999))
def test_the_speedup_lies_in_its_interval_and_an_engine_against_its_twin_near_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = [list(rng.uniform(0.9, 1.1, 10)) for _ in range(10)]
    twin = [list(rng.permutation(turn)) for turn in noisy]
    speedup = summarize({"fp32": noisy, "int8": twin}, 1)["int8"].speedup
    assert speedup is not None
    assert speedup.low <= speedup.value <= speedup.high
    assert (speedup.low, speedup.high) == pytest.approx((1, 1), rel=1e-9)  # paired by round


def test_a_machine_that_slows_down_slows_all_engines_alike() -> None:
    def at(base: float) -> Callable[[World], float]:
        return lambda world: base * (1 + world.now / 3)  # three times as slow at the end

    schedule = Schedule((1,), seconds=3.0, rounds=30)
    results, _ = simulate(schedule, fp32=at(0.004), int8=at(0.002))
    (int8,) = results["int8"]
    assert int8.speedup is not None
    assert int8.speedup.low <= 2.0 <= int8.speedup.high
    assert int8.speedup.value == pytest.approx(2.0, rel=0.02)
    assert int8.throughput_high / int8.throughput_low > 1.1  # the drift shows where it belongs


def test_warm_up_is_not_counted() -> None:
    def cold_start(world: World) -> float:
        return 0.1 if world.now < 0.85 else 0.01

    schedule = Schedule((1,), seconds=1.0, warmup_seconds=1.0)
    (got,) = simulate(schedule, fp32=cold_start)[0]["fp32"]
    assert got.p99_ms == pytest.approx(10.0)


def test_the_first_inference_after_another_engine_is_not_timed() -> None:
    def warm(precision: Precision) -> Callable[[World], float]:
        return lambda world: 0.01 if world.ran[-1:] == [precision] else 0.2

    schedule = Schedule((1,), seconds=1.0)
    results, _ = simulate(schedule, fp32=warm("fp32"), int8=warm("int8"))
    assert [p.p99_ms for (p,) in results.values()] == pytest.approx([10.0, 10.0])


def test_engines_take_turns_and_the_first_rotates() -> None:
    schedule = Schedule((1,), seconds=0.3, rounds=3, warmup_seconds=0.0)
    costs = dict.fromkeys(("fp32", "fp16", "int8"), steady(0.1))
    _, world = simulate(schedule, **costs)
    per_turn = 1 + 4  # one untimed; ten inferences in three rounds
    assert world.ran == [
        *("fp32", "fp16", "int8"),
        *(p for p in ("fp32", "fp16", "int8") for _ in range(per_turn)),
        *(p for p in ("fp16", "int8", "fp32") for _ in range(per_turn)),
        *(p for p in ("int8", "fp32", "fp16") for _ in range(per_turn)),
    ]


@pytest.mark.parametrize("rounds", [1, 3, 10, 12])
def test_a_slow_engine_still_runs_ten_times_and_in_every_round(rounds: int) -> None:
    results, _ = simulate(Schedule((1,), seconds=0.1, rounds=rounds), fp32=steady(5.0))
    (got,) = results["fp32"]
    assert got.rounds == rounds
    assert got.inferences == rounds * math.ceil(10 / rounds) >= 10


def test_each_engine_is_timed_for_the_seconds_asked() -> None:
    results, _ = simulate(Schedule((1, 8), seconds=2.0), fp32=steady(0.125 / 16))
    assert [p.batch for p in results["fp32"]] == [1, 8]
    assert [p.inferences for p in results["fp32"]] == pytest.approx([256, 256], abs=10)


def test_without_fp32_there_is_no_speedup() -> None:
    results, _ = simulate(Schedule((1,), seconds=0.1), fp16=steady(0.01), int8=steady(0.01))
    assert [p.speedup for (p,) in results.values()] == [None, None]


def test_one_round_has_no_spread() -> None:
    costs: Iterator[float] = cycle([0.01, 0.02])
    (got,) = simulate(Schedule((1,), seconds=1.0, rounds=1), fp32=lambda _: next(costs))[0]["fp32"]
    assert got.throughput_low == got.throughput == got.throughput_high


def test_all_engines_get_the_arrays_of_each_batch_and_progress_counts_rounds() -> None:
    world, asked, done = World(), list[int](), list[int]()
    sizes: dict[Precision, set[int]] = {"fp32": set(), "int8": set()}

    def inputs_for(batch: int) -> dict[str, Array]:
        asked.append(batch)
        return {"x": np.zeros((batch, 2), np.float32)}

    @dataclass
    class Watched(Simulated):
        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            sizes[self.precision].add(len(inputs["x"]))
            return super().run(inputs)

    runners = {p: Watched(world, p, steady(0.01)) for p in sizes}
    schedule = Schedule((1, 32), seconds=0.1, rounds=3)
    measure(runners, inputs_for, schedule=schedule, clock=world.clock, progress=done.append)
    assert asked == [1, 32]
    assert sizes == {"fp32": {1, 32}, "int8": {1, 32}}
    assert done == [1, 2, 3, 4, 5, 6]


def test_real_work_on_the_real_clock() -> None:
    weights = np.ones((256, 256), np.float32)

    class Product:
        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            return {"y": inputs["x"].astype(np.float32) @ weights}

        def describe(self) -> EngineInfo:
            raise NotImplementedError

    inputs = {"x": np.ones((8, 256), np.float32)}
    runners: dict[Precision, Product] = {"fp32": Product(), "int8": Product()}
    results = measure(runners, lambda _: inputs, schedule=Schedule((8,), seconds=0.05))
    for (got,) in results.values():
        assert 0 < got.p50_ms <= got.p90_ms <= got.p99_ms
        assert got.inferences >= 10


@pytest.mark.parametrize(
    ("batches", "seconds", "rounds"),
    [((), 1.0, 10), ((0,), 1.0, 10), ((1,), 0.0, 10), ((1,), 1.0, 0)],
)
def test_a_schedule_that_measures_nothing_is_refused(
    batches: tuple[int, ...], seconds: float, rounds: int
) -> None:
    with pytest.raises(ConfigError, match="expected batches and rounds of at least 1"):
        Schedule(batches, seconds, rounds)
