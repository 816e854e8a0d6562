"""What a cluster costs: a part's way into the result, 2 workers against 1, 10,000,000 samples.

    python -m benchmarks.cluster

The first figures are the coordinator's costs for a part of 200 tensors; the simulation of
docs/scale.md is made with them.  The second are whole calibrations of the shipped ResNet with
workers of one core each on a cluster that this machine starts.
"""

import heapq
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, ratio
from benchmarks.material import EXAMPLES, RESNET
from quantlab import pipeline
from quantlab.collect.gather import Gathered
from quantlab.collect.work import Part, Unit
from quantlab.histogram import BINS, Histogram

TENSORS = 200
BATCHES = 16
"""Batches a shard, the default of ``calibration.checkpoint``."""

BATCH = 32
REPEATS = 3
PARTS = 30

FEW, MANY = 1024, 5120
"""Samples of two calibrations whose difference is the rate without the start."""

SAMPLES = 10_000_000
RATE = 100.0
"""Samples a second and core of the simulated network: a ResNet-50 at 224 x 224, about."""

COPY = 10.0
"""Seconds for a node to get the model, and for a worker to open it."""

SPREAD = 0.1
"""Relative standard deviation of the simulated shards' times."""

WORKERS = (1, 8, 100, 1000)
SHARDS = (16, 64, 128)
"""Simulated values of ``calibration.checkpoint``."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated collection.

    Attributes:
        seconds: until the last part is merged.
        busy: share of them that the coordinator was merging.
        waited: longest that a part waited for the coordinator, in seconds.
    """

    seconds: float
    busy: float
    waited: float


def part(number: int) -> Part:
    """Return a part of TENSORS tensors."""
    rng = np.random.default_rng(number)
    names = [f"tensor{i}" for i in range(TENSORS)]
    return Part(
        unit=Unit(0, number),
        samples=BATCH * BATCHES,
        histograms={
            name: Histogram(name, rng.integers(0, 1 << 40, BINS), -10, -3.0, 3.0) for name in names
        },
        first=np.arange(BATCHES) * BATCH + number * BATCH * BATCHES,
        amax=rng.random((BATCHES, TENSORS)),
        fingerprint=number,
        skipped=(),
        inference_seconds=1.0,
        peak_bytes=1,
    )


def coordinator(folder: Path) -> Iterator[Figure]:
    """Yield what the coordinator pays for a part."""
    parts = [part(number) for number in range(PARTS)]
    gathered = Gathered((tuple(parts[0].histograms),))
    merging = [_seconds(partial(gathered.add, each)) for each in parts]
    receiving = list(_received())
    path = folder / "checkpoint.npz"
    writing = [_seconds(lambda: gathered.save(path, {})) for _ in range(5)]
    size = path.stat().st_size - 8 * TENSORS * BATCHES * PARTS
    yield _milliseconds("merging a part of 200 tensors", merging[1:])
    yield _milliseconds("receiving a part of 200 tensors", receiving)
    yield _milliseconds(f"writing a checkpoint of 200 tensors, {size / 1e6:.1f} MB", writing)


def _received() -> Iterator[float]:
    """Yield the seconds from one part to the next, as another process sends them."""
    ours, theirs = Pipe()
    sender = get_context("spawn").Process(target=_send, args=(theirs,))
    sender.start()
    ours.recv()
    for _ in range(PARTS - 1):
        yield _seconds(ours.recv)
    sender.join()


def _send(connection: Connection) -> None:
    for each in [part(number) for number in range(PARTS)]:
        connection.send(each)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _milliseconds(name: str, seconds: list[float]) -> Figure:
    times = [1000 * value for value in seconds]
    return Figure(
        name=name,
        value=statistics.median(times),
        unit="ms",
        low=min(times),
        high=max(times),
        how=f"median of {len(times)}",
    )


def workers(folder: Path) -> Iterator[Figure]:
    """Yield what two workers of one core gain over one, and over one process with two cores."""
    executors: Mapping[str, dict[str, object]] = {
        "1 worker": {"kind": "ray", "workers": 1},
        "2 workers": {"kind": "ray", "workers": 2},
        "1 process": {"kind": "local", "threads": 2},
    }
    rates: dict[str, list[float]] = {name: [] for name in executors}
    starts: dict[str, list[float]] = {name: [] for name in executors}
    cache: set[bytes] = set()
    for _ in range(REPEATS):
        for name, executor in executors.items():
            few, _ = _calibrated(folder, executor, FEW)
            many, found = _calibrated(folder, executor, MANY)
            cache.add(found)
            rates[name].append((MANY - FEW) / (many - few))
            starts[name].append(few - FEW / rates[name][-1])
    assert len(cache) == 1, "the executors gave different bytes"
    how = f"samples/s between {FEW} and {MANY} samples; ratio of medians over {REPEATS} turns"
    for other in ("1 worker", "1 process"):
        value, low, high = ratio(rates["2 workers"], rates[other])
        about = "of one core each" if other == "1 worker" else "with two cores, no cluster"
        yield Figure(f"Ray, 2 workers / {other} {about}", value, "x", low, high, how)
    for name in ("1 worker", "2 workers"):
        times = starts[name]
        yield Figure(
            f"Ray, {name}: starting and leaving a cluster on this machine",
            statistics.median(times),
            "s",
            min(times),
            max(times),
            "wall time that does not depend on the number of samples",
        )


def _calibrated(folder: Path, executor: Mapping[str, object], samples: int) -> tuple[float, bytes]:
    """Return the seconds of a collection of that many samples, and its histograms."""
    tree = yaml.safe_load(RESNET.read_text())
    tree["model"] = str(EXAMPLES / tree["model"])
    evaluated = tree.pop("evaluation")["dataset"]  # the larger set
    for key in ("images", "labels", "class_names", "path"):
        if key in evaluated:
            evaluated[key] = str(EXAMPLES / evaluated[key])
    tree["calibration"] |= {"dataset": evaluated, "samples": samples, "batch": BATCH}
    for key in ("benchmark", "targets"):
        tree.pop(key, None)
    with TemporaryDirectory(dir=folder) as run:
        tree |= {"executor": dict(executor), "output": run, "benchmark": None}
        config = folder / "job.yaml"
        config.write_text(yaml.safe_dump(tree))
        pipeline.calibrate(config)
        found = json.loads((Path(run) / "collection.json").read_text())
        bytes_ = (Path(run) / "histograms.npz").read_bytes() if samples == MANY else b""
    return float(found["seconds"]), bytes_


def simulated(count: int, checkpoint: int, cost: float, *, seed: int = 0) -> Run:
    """Return a collection of SAMPLES by ``count`` workers.

    A worker takes a shard as soon as its last one is done.  Its part is then merged by the
    coordinator, one after another, and only then is the worker given its next shard.

    Args:
        count: workers, of one core each.
        checkpoint: batches a shard.
        cost: seconds that the coordinator takes for a part.
        seed: of the shards' times.
    """
    rng = np.random.default_rng(seed)
    shards = -(-SAMPLES // (checkpoint * BATCH))
    mean = checkpoint * BATCH / RATE
    times = iter(np.maximum(rng.normal(mean, SPREAD * mean, shards), SPREAD * mean).tolist())
    done = [COPY + next(times) for _ in range(min(count, shards))]
    heapq.heapify(done)
    now = busy = waited = 0.0
    while done:
        arrived = heapq.heappop(done)
        waited = max(waited, now - arrived)
        now = max(now, arrived) + cost
        busy += cost
        following = next(times, None)
        if following is not None:
            heapq.heappush(done, now + following)
    return Run(now, busy / now, waited)


def main() -> None:
    """Measure, simulate, print."""
    console = Console(width=140)
    with TemporaryDirectory() as folder:
        costs = list(coordinator(Path(folder)))
        figures = [*costs, *workers(Path(folder))]
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    table = Table("figure", "value", "spread", "how")
    for f in figures:
        table.add_row(f.name, f"{f.value:.4g} {f.unit}", f"{f.low:.4g} to {f.high:.4g}", f.how)
    console.print(table)
    cost = sum(f.value for f in costs[:2]) / 1000
    title = f"{SAMPLES:,} samples, {RATE:g} a second and worker, {1000 * cost:.1f} ms a part"
    table = Table("checkpoint", "workers", "time", "coordinator busy", "efficiency", title=title)
    for checkpoint in SHARDS:
        for count in WORKERS:
            run = simulated(count, checkpoint, cost)
            ideal = SAMPLES / RATE / count
            table.add_row(
                str(checkpoint),
                f"{count:,}",
                f"{run.seconds:,.0f} s",
                f"{run.busy:.0%}",
                f"{ideal / run.seconds:.0%}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
