"""Latency and throughput of every engine, measured side by side.

For each batch size every engine is warmed up; then come rounds, in each of which every engine runs
for its share of the time.  A machine that heats up or gets busy so slows all engines alike, and the
speedup, a ratio paired by round, keeps only what differs between them.  The order rotates from
round to round.  When an engine's turn comes, its first inference is not timed: the caches still
hold the other engine's data.

Latency is the wall time of one ``Runner.run``, copies in and out included.  Percentile p is the
nearest rank, the least latency that at least p % of the inferences did not exceed; the median
averages the middle two.  These are trtexec's definitions: it takes place
n - 1 - floor((1 - p/100) n) of n sorted times, counted from 0, which is the nearest rank
ceil(p n / 100) counted from 1; where p n / 100 is whole, trtexec's rounding can give the next
place, the exact formula used here cannot.  Throughput is all samples over all timed seconds.  The
intervals are a bootstrap over rounds.

A DeviceRunner is measured by its own device, as trtexec does.  Half of its time goes to queries
with copies, of which the next begins before the last has ended: there latency is H2D + inference +
D2H of a query, and seconds run from the first copy to the last, so throughput is more than one over
the latency.  The other half goes to queries without copies.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from quantlab.cuda.clocks import Read, Watch, reading, watching
from quantlab.engines.base import Array, DeviceRunner, Queries, Runner
from quantlab.errors import ConfigError
from quantlab.intervals import bootstrap
from quantlab.measured import DevicePerformance, Interval, Percentiles, Performance
from quantlab.records import PRECISIONS, Precision

INFERENCES = 10
"""Least number of timed inferences of an engine, however slow, as in trtexec."""

ENQUEUE_SHARE = 0.8
"""Of the GPU's time: a longer enqueue time is warned of, as by trtexec."""

VARIATION = 0.025
"""Coefficient of variation of the GPU's time above which trtexec calls it unstable."""

CLOCK_MOVED = 0.05
"""Of the highest clock: a lowest one further below is warned of."""

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
    with ExitStack() as stack:
        reads = {engine: stack.enter_context(reading(_bus(runners[engine]))) for engine in engines}
        for position, batch in enumerate(schedule.batches):
            inputs = inputs_for(batch)
            taken = {engine: _Taken(runners[engine], inputs, reads[engine]) for engine in engines}
            for engine in engines:
                taken[engine].warm_up(schedule.warmup_seconds, clock)
            for number in range(schedule.rounds):
                first = number % len(engines)
                for engine in engines[first:] + engines[:first]:
                    taken[engine].turn(schedule, clock)
                if progress is not None:
                    progress(position * schedule.rounds + number + 1)
            found = summarize(
                {engine: taken[engine].latencies for engine in engines},
                batch,
                seconds={engine: taken[engine].seconds for engine in engines},
            )
            for engine, performance in found.items():
                device = taken[engine].on_device(batch)
                results[engine] += (replace(performance, device=device),)
    return results


def summarize(
    rounds: Mapping[Precision, list[list[float]]],
    batch: int,
    *,
    seconds: Mapping[Precision, list[float]] | None = None,
    seed: int = 0,
) -> dict[Precision, Performance]:
    """Return each engine's performance from its latencies in seconds, round by round.

    Args:
        rounds: by engine, FP32 first if it is there: a list of latencies for each round.
        batch: samples an inference.
        seconds: by engine, of each round; the sum of its latencies if not given.
        seed: of the bootstrap over rounds.
    """
    engines = list(rounds)
    samples = np.array([[batch * len(turn) for turn in rounds[engine]] for engine in engines])
    if seconds is None:
        seconds = {engine: [sum(turn) for turn in turns] for engine, turns in rounds.items()}
    spent = np.array([seconds[engine] for engine in engines])

    def statistic(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        throughput = samples[:, drawn].sum(axis=-1) / spent[:, drawn].sum(axis=-1)
        return np.concatenate([throughput, throughput[1:] / throughput[:1]])

    intervals = bootstrap(samples.shape[1], statistic, seed=seed, width=2 * len(engines))
    throughputs, ratios = intervals[: len(engines)], intervals[len(engines) :]
    speedups = dict(zip(engines[1:], ratios, strict=True)) if engines[0] == "fp32" else {}
    return {
        engine: _performance(batch, rounds[engine], throughput, speedups.get(engine))
        for engine, throughput in zip(engines, throughputs, strict=True)
    }


@dataclass(slots=True)
class _Taken:
    """What one engine's turns at one batch size gave; mutable on purpose: turns are added."""

    runner: Runner
    inputs: Mapping[str, Array]
    read: Read | None
    latencies: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    copied: list[Queries] = field(default_factory=list)
    bare: list[Queries] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)

    def warm_up(self, seconds: float, clock: Clock) -> None:
        if isinstance(self.runner, DeviceRunner):
            self.runner.queries(self.inputs, least=1, seconds=seconds, transfers=True)
            return
        start = clock()
        self.runner.run(self.inputs)
        while clock() - start < seconds:
            self.runner.run(self.inputs)

    def turn(self, schedule: Schedule, clock: Clock) -> None:
        least, seconds = ceil(INFERENCES / schedule.rounds), schedule.seconds / schedule.rounds
        if isinstance(self.runner, DeviceRunner):
            self._on_device(self.runner, least, seconds / 2)
        else:
            self._on_host(least, seconds, clock)

    def _on_host(self, least: int, seconds: float, clock: Clock) -> None:
        self.runner.run(self.inputs)
        latencies: list[float] = []
        start = last = clock()
        while len(latencies) < least or last - start < seconds:
            self.runner.run(self.inputs)
            now = clock()
            latencies.append(now - last)
            last = now
        self.latencies.append(latencies)
        self.seconds.append(sum(latencies))

    def _on_device(self, runner: DeviceRunner, least: int, seconds: float) -> None:
        with watching(self.read, self.watch):
            copied, bare = (
                runner.queries(self.inputs, least=least, seconds=seconds, transfers=transfers)
                for transfers in (True, False)
            )
        self.latencies.append(list((copied.h2d + copied.compute + copied.d2h) / 1e3))
        self.seconds.append(copied.seconds)
        self.copied.append(copied)
        self.bare.append(bare)

    def on_device(self, batch: int) -> DevicePerformance | None:
        """Return what the device's own clock says, where it has one."""
        if not isinstance(self.runner, DeviceRunner):
            return None
        compute = np.concatenate([queries.compute for queries in self.copied])
        samples = batch * sum(len(queries.compute) for queries in self.bare)
        found = DevicePerformance(
            compute_ms=_percentiles(compute),
            h2d_ms=_percentiles(np.concatenate([queries.h2d for queries in self.copied])),
            d2h_ms=_percentiles(np.concatenate([queries.d2h for queries in self.copied])),
            enqueue_ms=_percentiles(np.concatenate([queries.enqueue for queries in self.copied])),
            throughput_without_transfers=samples / sum(queries.seconds for queries in self.bare),
            cuda_graph=self.runner.cuda_graph,
            clocks_mhz=self.watch.clocks_mhz,
            power_watts=self.watch.power_watts,
        )
        doubts = (*self.runner.notes, *_doubts(found, compute))
        return replace(found, warnings=doubts)


def _bus(runner: Runner) -> str:
    return runner.bus if isinstance(runner, DeviceRunner) else ""


def _doubts(found: DevicePerformance, compute: NDArray[np.float64]) -> Sequence[str]:
    """Return what makes a device's times doubtful, in sentences."""
    told, gpu = [], found.compute_ms.p50
    if found.enqueue_ms.p50 > ENQUEUE_SHARE * gpu:
        remedy = "" if found.cuda_graph else "; 'cuda_graph: true' or a larger batch can help"
        told.append(
            f"bound by the host: handing over an inference takes {found.enqueue_ms.p50:.3g} ms, "
            f"more than {ENQUEUE_SHARE:.0%} of the GPU's {gpu:.3g} ms{remedy}"
        )
    variation = float(np.std(compute)) / max(float(np.mean(compute)), 1e-9)
    if variation > VARIATION:
        told.append(
            f"unstable: the GPU's time varies by {variation:.1%} from inference to inference "
            f"(standard deviation over mean; above {VARIATION:.1%} trtexec warns): is the GPU busy "
            "with something else, or does its clock move?"
        )
    for name, copy in (("to the GPU", found.h2d_ms), ("back", found.d2h_ms)):
        if copy.p50 >= gpu:
            told.append(
                f"copying {name} takes {copy.p50:.3g} ms, no less than the inference's {gpu:.3g} "
                "ms: throughput is that of the copies"
            )
    if found.clocks_mhz is not None:
        low, high = found.clocks_mhz
        if low < (1 - CLOCK_MOVED) * high:
            told.append(
                f"the GPU's clock moved between {low} and {high} MHz: times of different moments "
                "cannot be compared; nvidia-smi --lock-gpu-clocks fixes it"
            )
    return told


def _percentiles(ms: NDArray[np.float64]) -> Percentiles:
    p90, p99 = np.percentile(ms, [90, 99], method="inverted_cdf")
    return Percentiles(p50=float(np.median(ms)), p90=float(p90), p99=float(p99))


def _performance(
    batch: int, rounds: list[list[float]], throughput: Interval, speedup: Interval | None
) -> Performance:
    ms = 1000 * np.concatenate(rounds)
    found = _percentiles(ms)
    return Performance(
        batch=batch,
        p50_ms=found.p50,
        p90_ms=found.p90,
        p99_ms=found.p99,
        throughput=throughput.value,
        throughput_low=throughput.low,
        throughput_high=throughput.high,
        speedup=speedup,
        inferences=len(ms),
        rounds=len(rounds),
    )
