"""The step ``collect``: run the samples, keep histograms, and a checkpoint while it goes on.

Steps are skipped when done; within this one, what a run that was stopped has counted is in
checkpoint.npz, and the next run with the same config goes on behind it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab.collect import batch_amax, collector, gather
from quantlab.collect import saved as histogram_file
from quantlab.collect.cut import Request, cut
from quantlab.collect.executor import Executor
from quantlab.collect.executors import EXECUTORS
from quantlab.collect.work import Work
from quantlab.engines.host import versions
from quantlab.errors import CalibrationError
from quantlab.graph import model as graph
from quantlab.graph.files import digest
from quantlab.registry import make
from quantlab.saved import dump, load
from quantlab.steps.job import Inputs, Job, described

MIB = 1 << 20

FOLLOW = {"samples found", "samples a shard"}
"""Parts of a checkpoint's key that mostly change because others do, and then need not be named."""

RUNNING = ("quantlab", "numpy", "onnxruntime", "onnxruntime-gpu")
"""Packages whose version a checkpoint depends on: the activations may."""


def collect(job: Job, model: ir.Model, tensors: Sequence[str]) -> None:
    """Collect the histograms of ``tensors`` as far as that is not done.

    Raises:
        QuantlabError: the samples, the model, the executor or the checkpoint cannot be used.
    """
    made_from = collect_from(job, tensors)
    path = job.file("checkpoint.npz")
    if job.folder.stale("collect", made_from) is None and not _executor(job).distributed:
        known = load(job.file("collection.json"), gather.Collected)
        job.recheck_samples("collect", known.data_hash, job.fitting(graph.inputs(model)))

    def work() -> Sequence[Path]:
        found = _run(job, graph.inputs(model), tensors, made_from)
        histogram_file.save(job.file("histograms.npz"), found.histograms)
        names = tuple(found.histograms)
        batch_amax.save(job.file("batch_amax.npz"), names, found.first, found.batch_amax)
        dump(job.file("collection.json"), found.how, gather.Collected)
        return [job.file(n) for n in ("histograms.npz", "batch_amax.npz", "collection.json")]

    job.folder.step("collect", made_from, work)
    path.unlink(missing_ok=True)


def collect_from(job: Job, tensors: Sequence[str]) -> Mapping[str, Any]:
    """Return what the histograms depend on."""
    config = job.config.calibration
    return {
        "prepared model": digest(job.file("prepared.onnx")),
        "calibration dataset": described(config.dataset),
        "calibration samples": config.samples,
        "calibration held back": config.held_back if job.config.holds_back else None,
        "calibration batch": config.batch,  # of the batches' maxima; nothing else depends on it
        "device": _executor(job).device,
        "tensors": tensors,
    }


def _key(job: Job, made_from: Mapping[str, Any], work: Work) -> Mapping[str, Any]:
    """Return what a checkpoint depends on, as JSON reads it back."""
    config = job.config.calibration
    cut = {
        "calibration checkpoint": config.checkpoint,
        "calibration max_memory": config.max_memory,
        "samples found": work.samples,
        "samples a shard": work.shard,
        "versions": {name: versions()[name] for name in RUNNING if name in versions()},
    }
    key: dict[str, Any] = json.loads(json.dumps({**made_from, **cut}, default=str))
    return key


def _executor(job: Job) -> Executor:
    plug = job.config.executor
    return make("executor", EXECUTORS, plug.kind, plug.parameters)


def count(job: Job, model: Path, inputs: Inputs, tensors: Sequence[str]) -> collector.Collection:
    """Collect tensors of another model on the same samples, without a checkpoint.

    Raises:
        QuantlabError: the samples, the model or the executor cannot be used.
    """
    executor = _executor(job)
    executor.available()
    work = cut(_request(job, model, inputs, tensors), executor)
    return collector.collect(work, executor)


def _request(job: Job, model: Path, inputs: Inputs, tensors: Sequence[str]) -> Request:
    config = job.config.calibration
    return Request(
        model=model,
        inputs=inputs,
        tensors=tuple(tensors),
        dataset=job.dataset(config.dataset),
        samples=job.fitted(inputs),
        batch=config.batch,
        checkpoint=config.checkpoint,
        max_memory=config.max_memory,
    )


def _run(
    job: Job, inputs: Inputs, tensors: Sequence[str], made_from: Mapping[str, Any]
) -> collector.Collection:
    config = job.config.calibration
    executor = _executor(job)
    executor.available()
    work = cut(_request(job, job.file("prepared.onnx"), inputs, tensors), executor)
    checkpoint = collector.Checkpoint(job.file("checkpoint.npz"), _key(job, made_from, work))
    gathered = _resumed(checkpoint)
    if work.batch != config.batch:
        job.progress.note(
            f"the model's batch axis is fixed: calibrating in batches of {work.batch}"
        )
    if gathered is not None:
        work = replace(work, passes=gathered.passes)
        if not executor.distributed:
            collector.check_unchanged(work, gathered)
        job.progress.note(
            f"going on from the checkpoint: {len(gathered.done)} of {len(work.units)} shards are "
            "counted"
        )
    if config.max_memory is not None:
        job.progress.note(_told(work, config.max_memory))
    title = f"calibrating {len(tensors)} tensors, {-(-work.samples // work.batch)} batches"
    total = work.samples * len(work.passes)
    with job.progress.track(title, total=total, unit="samples") as advance:
        found = collector.collect(
            work, executor, gathered=gathered, checkpoint=checkpoint, advance=advance
        )
    _check_peak(job, found.how)
    return found


def _resumed(checkpoint: collector.Checkpoint) -> gather.Gathered | None:
    """Return what the checkpoint holds, if there is one.

    Raises:
        CalibrationError: it is damaged, or of another config; it stays as it is.
    """
    if not checkpoint.path.exists():
        return None
    gathered, key = gather.load(checkpoint.path)
    names = {name for name in {*key, *checkpoint.key} if key.get(name) != checkpoint.key.get(name)}
    changed = [
        f"{name} ({json.dumps(key.get(name)):.60} -> {json.dumps(checkpoint.key.get(name)):.60})"
        for name in sorted(names - FOLLOW) or sorted(names)
    ]
    if changed:
        raise CalibrationError(
            f"{checkpoint.path} is a checkpoint of {gathered.samples} samples that were collected "
            f"with another config; changed since: {', '.join(changed)}; undo the change to go on "
            "from it, choose another folder with --output, or delete it to collect anew"
        )
    return gathered


def _told(work: Work, budget: int) -> str:
    passes = "1 pass" if len(work.passes) == 1 else f"{len(work.passes)} passes"
    lanes = "1 slice" if work.lanes == 1 else f"{work.lanes} slices"
    return (
        f"memory: {passes} over the samples, {lanes} of {work.slice} samples at once; expected "
        f"peak {work.expected_peak_bytes / MIB:.0f} MiB of {budget / MIB:.0f} MiB"
    )


def _check_peak(job: Job, how: gather.Collected) -> None:
    budget = job.config.calibration.max_memory
    if budget is not None and how.peak_rss_bytes > budget:
        job.progress.warn(
            f"collecting held {how.peak_rss_bytes / MIB:.0f} MiB at its peak, more than the "
            f"{budget / MIB:.0f} MiB of 'calibration.max_memory'; from the first sample "
            f"{how.expected_peak_bytes / MIB:.0f} MiB were expected: are later ones larger?"
        )
