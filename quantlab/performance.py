"""Latency and throughput of every engine, measured side by side.

For each batch size every engine is warmed up; then come rounds, in each of which every engine runs
for its share of the time.  A machine that heats up or gets busy so slows all engines alike, and the
speedup, a ratio paired by round, keeps only what differs between them.  The order rotates from
round to round.  When an engine's turn comes, its first inference is not timed: the caches still
hold the other engine's data.

Latency is the wall time of one ``Runner.run``, copies in and out included.  Percentile p is the
nearest rank, the least latency that at least p % of the inferences did not exceed; the median
averages the middle two.  These are trtexec's definitions.  Throughput is all samples over all
timed seconds.  The intervals are a bootstrap over rounds.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from quantlab.engines.base import Array, Runner
from quantlab.errors import ConfigError
from quantlab.intervals import bootstrap
from quantlab.records import PRECISIONS, Interval, Performance, Precision

INFERENCES = 10
"""Least number of timed inferences of an engine, however slow, as in trtexec."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long is measured.

    Attributes:
        batches: batch sizes.
        seconds: timed, of each engine at each batch size.
        rounds: that the time is cut into; the intervals come from their spread.
        warmup_seconds: run before the first round, not counted.
    """

    batches: tuple[int, ...]
    seconds: float
    rounds: int = 10
    warmup_seconds: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if min(self.batches, default=0) < 1 or self.rounds < 1 or self.seconds <= 0:
            raise ConfigError(
                f"benchmark: got {self}; expected batches and rounds of at least 1 and seconds "
                "above 0"
            )


def measure(
    runners: Mapping[Precision, Runner],
    inputs_for: Callable[[int], Mapping[str, Array]],
    *,
    schedule: Schedule,
    clock: Clock = time.perf_counter,
    progress: Callable[[int], None] | None = None,
) -> dict[Precision, tuple[Performance, ...]]:
    """Measure every engine at every batch size.

    Args:
        runners: opened engines by precision.
        inputs_for: gives the arrays of a batch of that size; all engines get the same.
        schedule: how long.
        clock: seconds, rising.
        progress: called after each round with the number of rounds done so far, of
            ``len(schedule.batches) * schedule.rounds``.

    Raises:
        EngineError: an engine failed.
    """
    engines: list[Precision] = [precision for precision in PRECISIONS if precision in runners]
    results: dict[Precision, tuple[Performance, ...]] = dict.fromkeys(engines, ())
    for position, batch in enumerate(schedule.batches):
        inputs = inputs_for(batch)
        for engine in engines:
            _warm_up(runners[engine], inputs, schedule.warmup_seconds, clock)
        rounds: dict[Precision, list[list[float]]] = {engine: [] for engine in engines}
        for number in range(schedule.rounds):
            turn = number % len(engines)
            for engine in engines[turn:] + engines[:turn]:
                rounds[engine].append(_turn(runners[engine], inputs, schedule, clock))
            if progress is not None:
                progress(position * schedule.rounds + number + 1)
        for engine, performance in summarize(rounds, batch).items():
            results[engine] += (performance,)
    return results


def summarize(
    rounds: Mapping[Precision, list[list[float]]], batch: int, *, seed: int = 0
) -> dict[Precision, Performance]:
    """Return each engine's performance from its latencies in seconds, round by round.

    Args:
        rounds: by engine, FP32 first if it is there: a list of latencies for each round.
        batch: samples an inference.
        seed: of the bootstrap over rounds.
    """
    engines = list(rounds)
    samples = np.array([[batch * len(turn) for turn in rounds[engine]] for engine in engines])
    seconds = np.array([[sum(turn) for turn in rounds[engine]] for engine in engines])

    def statistic(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        throughput = samples[:, drawn].sum(axis=-1) / seconds[:, drawn].sum(axis=-1)
        return np.concatenate([throughput, throughput[1:] / throughput[:1]])

    intervals = bootstrap(samples.shape[1], statistic, seed=seed, width=2 * len(engines))
    throughputs, ratios = intervals[: len(engines)], intervals[len(engines) :]
    speedups = dict(zip(engines[1:], ratios, strict=True)) if engines[0] == "fp32" else {}
    return {
        engine: _performance(batch, rounds[engine], throughput, speedups.get(engine))
        for engine, throughput in zip(engines, throughputs, strict=True)
    }


def _warm_up(runner: Runner, inputs: Mapping[str, Array], seconds: float, clock: Clock) -> None:
    start = clock()
    runner.run(inputs)
    while clock() - start < seconds:
        runner.run(inputs)


def _turn(
    runner: Runner, inputs: Mapping[str, Array], schedule: Schedule, clock: Clock
) -> list[float]:
    """Return the latencies in seconds of one engine's turn in a round."""
    least, seconds = ceil(INFERENCES / schedule.rounds), schedule.seconds / schedule.rounds
    runner.run(inputs)
    latencies: list[float] = []
    start = last = clock()
    while len(latencies) < least or last - start < seconds:
        runner.run(inputs)
        now = clock()
        latencies.append(now - last)
        last = now
    return latencies


def _performance(
    batch: int, rounds: list[list[float]], throughput: Interval, speedup: Interval | None
) -> Performance:
    ms = 1000 * np.concatenate(rounds)
    p90, p99 = np.percentile(ms, [90, 99], method="inverted_cdf")
    return Performance(
        batch=batch,
        p50_ms=float(np.median(ms)),
        p90_ms=float(p90),
        p99_ms=float(p99),
        throughput=throughput.value,
        throughput_low=throughput.low,
        throughput_high=throughput.high,
        speedup=speedup,
        inferences=len(ms),
        rounds=len(rounds),
    )
