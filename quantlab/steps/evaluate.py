"""Measure the engines: accuracy on the evaluation samples, speed, and what each layer ran as."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantlab import accuracy, performance
from quantlab.config import Evaluation, Plug
from quantlab.datasets.base import Array, Batch
from quantlab.datasets.batching import batch_size, batches, take
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.graph import model as graph
from quantlab.metrics import METRICS
from quantlab.metrics.base import Metric
from quantlab.records import EngineInfo, Performance, Precision, TensorSpec
from quantlab.registry import make
from quantlab.saved import dump, load
from quantlab.steps.build import files_of, running
from quantlab.steps.job import Job, described

Inspection = dict[Precision, EngineInfo]
Timings = dict[Precision, tuple[Performance, ...]]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """How an evaluation went.

    Attributes:
        samples: how many were judged.
        data_hash: SHA-256 over them, independent of their order.
        class_names: by class index, None if the dataset knows none.
        skipped: samples that the dataset left out, with the reason.
    """

    samples: int
    data_hash: str
    class_names: tuple[str, ...] | None
    skipped: tuple[str, ...]


def evaluate(job: Job) -> None:
    """Do the steps ``evaluate``, ``inspect`` and ``benchmark`` as far as they are not done."""
    inputs = graph.inputs(job.prepared())
    if job.config.evaluation is not None:
        _accuracy(job, job.config.evaluation, inputs)
    _inspect(job, inputs)
    if job.config.benchmark is not None:
        _speed(job, inputs)


def metrics_of(job: Job) -> tuple[Metric, ...]:
    """Return the metrics that the config lists."""
    listed = job.config.evaluation.metrics if job.config.evaluation else ()
    plugs = [m if isinstance(m, Plug) else Plug(kind=m) for m in listed]
    base = job.source.parent
    return tuple(make("metric", METRICS, p.kind, p.parameters, base=base) for p in plugs)


def _accuracy(job: Job, config: Evaluation, inputs: tuple[TensorSpec, ...]) -> None:
    metrics = metrics_of(job)
    made_from = {
        "engines": files_of(job),
        "evaluation dataset": described(config.dataset),
        "evaluation samples": config.samples,
        "metrics": [m if isinstance(m, str) else described(m) for m in config.metrics],
        "output": config.output,
    }
    if job.folder.stale("evaluate", made_from) is None:
        known = load(job.file("evaluation.json"), Evaluated)
        limit, batch = config.samples, config.batch
        if known.data_hash == job.fingerprint(config.dataset, inputs, limit=limit, batch=batch):
            return
        job.progress.note("the evaluation samples changed: evaluating again")
        job.folder.forget("evaluate")

    def work() -> Sequence[Path]:
        seen = Fingerprint()
        with running(job) as runners, job.samples(config.dataset, inputs) as samples:
            count = take(samples, config.samples)
            size = batch_size(inputs, config.batch)
            found = batches(samples, inputs, size=size, limit=config.samples)
            title = f"evaluating {', '.join(runners)}"
            with job.progress.track(title, total=count, unit="samples") as advance:
                scores = accuracy.evaluate(
                    runners, _watched(found, seen), metrics, output=config.output, progress=advance
                )
            names, skipped = samples.class_names, tuple(samples.skipped)
        scores.save(job.file("scores.npz"))
        how = Evaluated(len(scores.indices), seen.hexdigest(), names, skipped)
        dump(job.file("evaluation.json"), how, Evaluated)
        return [job.file("scores.npz"), job.file("evaluation.json")]

    job.folder.step("evaluate", made_from, work)


def _inspect(job: Job, inputs: tuple[TensorSpec, ...]) -> None:
    size = _sizes(job, inputs)[0]

    def work() -> Sequence[Path]:
        arrays = _inputs(job, inputs, size)
        with running(job) as runners:
            found: Inspection = {}
            for precision, runner in runners.items():
                runner.run(arrays)
                found[precision] = runner.describe()
        return [dump(job.file("inspection.json"), found, Inspection)]

    job.folder.step("inspect", {"engines": files_of(job), "batch": size}, work)


def _speed(job: Job, inputs: tuple[TensorSpec, ...]) -> None:
    config = job.config.benchmark
    assert config is not None  # noqa: S101  the caller asked
    schedule = performance.Schedule(
        batches=_sizes(job, inputs),
        seconds=config.seconds,
        rounds=config.rounds,
        warmup_seconds=config.warmup_seconds,
    )

    def work() -> Sequence[Path]:
        with running(job) as runners:
            total = len(schedule.batches) * schedule.rounds
            with job.progress.track("measuring speed", total=total, unit="rounds") as advance:
                found = performance.measure(
                    runners,
                    lambda batch: _inputs(job, inputs, batch),
                    schedule=schedule,
                    progress=advance,
                )
        return [dump(job.file("benchmark.json"), found, Timings)]

    job.folder.step("benchmark", {"engines": files_of(job), "schedule": repr(schedule)}, work)


def _sizes(job: Job, inputs: tuple[TensorSpec, ...]) -> tuple[int, ...]:
    """Return the batch sizes to measure: the config's, or the one that the model allows."""
    asked = job.config.benchmark.batches if job.config.benchmark else (1,)
    return tuple(dict.fromkeys(batch_size(inputs, size) for size in asked))


def _inputs(job: Job, inputs: tuple[TensorSpec, ...], size: int) -> Mapping[str, Array]:
    """Return a batch of real samples, the first ones again where the dataset has fewer."""
    config = job.config.evaluation or job.config.calibration
    with job.samples(config.dataset, inputs) as samples:
        first = next(batches(samples, inputs, size=size))
    if first.size == size:
        return first.arrays
    again = np.arange(size) % first.size
    return {name: array[again] for name, array in first.arrays.items()}


def _watched(found: Iterable[Batch], seen: Fingerprint) -> Iterator[Batch]:
    for batch in found:
        seen.add(batch)
        yield batch
