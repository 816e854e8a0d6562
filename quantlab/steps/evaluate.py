"""Measure the engines: accuracy on the evaluation samples, speed, and what each layer ran as."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantlab import accuracy
from quantlab.config import Benchmark, Evaluation
from quantlab.datasets.base import Array, Batch
from quantlab.datasets.batching import batch_size, batches, take
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.engines.host import host
from quantlab.engines.ort_session import run, session
from quantlab.graph import model as graph
from quantlab.measured import Performance
from quantlab.performance import Schedule, measure
from quantlab.records import EngineInfo, Precision, TensorSpec
from quantlab.saved import dump, load
from quantlab.steps.build import measured, running
from quantlab.steps.job import Job, described
from quantlab.steps.speed import batch as speed_batch
from quantlab.steps.speed import sizes

FAITHFUL = 1e-2
"""Relative RMS difference between two FP32 runtimes that the order of additions can explain."""

Inspection = dict[Precision, EngineInfo]
Timings = dict[Precision, tuple[Performance, ...]]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """How an evaluation went.

    Attributes:
        samples: how many were judged.
        data_hash: SHA-256 over them, independent of their order.
        labelled_hash: the same with their labels.
        class_names: by class index, None if the dataset knows none.
        skipped: samples that the dataset left out, with the reason.
    """

    samples: int
    data_hash: str
    class_names: tuple[str, ...] | None
    skipped: tuple[str, ...]
    labelled_hash: str = ""


def evaluate(job: Job) -> None:
    """Do the steps ``evaluate``, ``inspect`` and ``benchmark`` as far as they are not done."""
    inputs = graph.inputs(job.prepared())
    if job.config.evaluation is not None:
        _accuracy(job, job.config.evaluation, inputs)
    _inspect(job, inputs)
    if job.config.benchmark is not None:
        _speed(job, job.config.benchmark, inputs)


def check_samples(job: Job) -> None:
    """Check on the first evaluation samples that the metrics can judge such.

    Raises:
        DataError: there are none, they do not fit the model, or a metric lacks labels.
    """
    config = job.config.evaluation
    if config is None:
        return
    first = next(job.batches(config, graph.inputs(job.prepared())))
    for metric in job.metrics():
        if metric.compares == "labels":
            accuracy.labels_of(first, metric.name)


def check_evaluated(job: Job) -> None:
    """Check that the measurements in the run folder are of its engines, as the config asks.

    Raises:
        OutputError: one is missing or stale; says why.
    """
    inputs = graph.inputs(job.prepared())
    if job.config.evaluation is not None:
        job.require("evaluate", _accuracy_from(job, job.config.evaluation), "evaluate")
    job.require("inspect", _inspect_from(job, inputs), "evaluate")
    if job.config.benchmark is not None:
        schedule = _schedule(job, job.config.benchmark, inputs)
        job.require("benchmark", _speed_from(job, schedule), "evaluate")


def _accuracy_from(job: Job, config: Evaluation) -> Mapping[str, Any]:
    return measured(job) | {
        "evaluation dataset": described(config.dataset),
        "evaluation samples": config.samples,
        "metrics": [m if isinstance(m, str) else described(m) for m in config.metrics],
        "output": config.output,
    }


def _accuracy(job: Job, config: Evaluation, inputs: tuple[TensorSpec, ...]) -> None:
    metrics = job.metrics()
    made_from = _accuracy_from(job, config)
    if job.folder.stale("evaluate", made_from) is None:
        known = load(job.file("evaluation.json"), Evaluated)
        found = job.batches(config, inputs)
        job.recheck_samples("evaluate", known.labelled_hash, found, labelled=True)

    def work() -> Sequence[Path]:
        seen, labelled = Fingerprint(), Fingerprint(labelled=True)
        with running(job) as runners, job.samples(config.dataset, inputs) as samples:
            count = take(samples, config.samples)
            size = batch_size(inputs, config.batch)
            found = batches(samples.part(0, count), inputs, size=size, count=count)
            title = f"evaluating {', '.join(runners)}"
            with job.progress.track(title, total=count, unit="samples") as advance:
                scores = accuracy.evaluate(
                    runners,
                    _watched(found, seen, labelled),
                    metrics,
                    output=config.output,
                    progress=advance,
                )
            names, skipped = samples.class_names, tuple(samples.skipped)
        scores.save(job.file("scores.npz"))
        hashes = seen.hexdigest(), labelled.hexdigest()
        how = Evaluated(len(scores.indices), hashes[0], names, skipped, hashes[1])
        dump(job.file("evaluation.json"), how, Evaluated)
        return [job.file("scores.npz"), job.file("evaluation.json")]

    job.folder.step("evaluate", made_from, work)


def _inspect_from(job: Job, inputs: tuple[TensorSpec, ...]) -> Mapping[str, Any]:
    return measured(job) | {"host": host(), "batch": sizes(job, inputs)[0]}


def _inspect(job: Job, inputs: tuple[TensorSpec, ...]) -> None:
    def work() -> Sequence[Path]:
        arrays = speed_batch(job, inputs, sizes(job, inputs)[0])
        with running(job) as runners:
            found: Inspection = {}
            for precision, runner in runners.items():
                outputs = runner.run(arrays)
                found[precision] = runner.describe()
                if precision == "fp32":
                    notes = _unfaithful(job, arrays, outputs)
                    found[precision] = replace(
                        found[precision], notes=found[precision].notes + notes
                    )
        return [dump(job.file("inspection.json"), found, Inspection)]

    job.folder.step("inspect", _inspect_from(job, inputs), work)


def _unfaithful(
    job: Job, arrays: Mapping[str, Array], outputs: Mapping[str, Array]
) -> tuple[str, ...]:
    """Say so if FP32 does not compute what the model says: everything is compared with it."""
    expected = run(session(job.file("prepared.onnx")), list(outputs), arrays)
    notes = []
    for name, values in expected.items():
        wanted = values.astype(np.float64)
        size = float(np.sqrt(np.mean(np.square(wanted))))
        error = float(np.sqrt(np.mean(np.square(outputs[name].astype(np.float64) - wanted))))
        if error > FAITHFUL * size:
            notes.append(
                f"output {name!r} is off ONNX Runtime's by {error:.2g} RMS, where its own size is "
                f"{size:.2g}: the backend computes this model differently, and INT8 is compared "
                "with that"
            )
    return tuple(notes)


def _schedule(job: Job, config: Benchmark, inputs: tuple[TensorSpec, ...]) -> Schedule:
    return Schedule(
        batches=sizes(job, inputs),
        seconds=config.seconds,
        rounds=config.rounds,
        warmup_seconds=config.warmup_seconds,
    )


def _speed_from(job: Job, schedule: Schedule) -> Mapping[str, Any]:
    return measured(job) | {"host": host(), "schedule": asdict(schedule)}


def _speed(job: Job, config: Benchmark, inputs: tuple[TensorSpec, ...]) -> None:
    schedule = _schedule(job, config, inputs)

    def work() -> Sequence[Path]:
        with running(job) as runners:
            total = len(schedule.batches) * schedule.rounds
            with job.progress.track("measuring speed", total=total, unit="rounds") as advance:
                found = measure(
                    runners,
                    lambda batch: speed_batch(job, inputs, batch),
                    schedule=schedule,
                    progress=advance,
                )
        return [dump(job.file("benchmark.json"), found, Timings)]

    job.folder.step("benchmark", _speed_from(job, schedule), work)


def _watched(found: Iterable[Batch], *seen: Fingerprint) -> Iterator[Batch]:
    for batch in found:
        for fingerprint in seen:
            fingerprint.add(batch)
        yield batch
