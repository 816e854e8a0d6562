"""The step ``search``: which layers stay out of INT8 for the config's target.

It stands between ``decide`` and the builds, where the config has ``search: true``, and judges on
the samples held back.  What it chose is pinned in the models that are built.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab.engines.base import BuildContext
from quantlab.findings import Searched
from quantlab.graph import model as graph
from quantlab.graph.pins import pin
from quantlab.performance import Schedule
from quantlab.records import Precision
from quantlab.saved import dump, load
from quantlab.search.bench import Subject, opened
from quantlab.search.chosen import layers
from quantlab.search.search import search as find
from quantlab.search.target import sought
from quantlab.search.timing import Track
from quantlab.steps.analyze import analysis_from, analyze
from quantlab.steps.draft import draft
from quantlab.steps.held_back import HeldBack, held_back, recheck
from quantlab.steps.job import Inputs, Job
from quantlab.steps.repair import outcome
from quantlab.steps.shapes import calibration_batches, shapes
from quantlab.steps.speed import batch, sizes

RECORD = "search.json"
SAMPLES = "search_samples.json"

PRIOR = 32
"""Samples of the analysis that ranks the layers: plans are judged on all that are held back."""

SECONDS = 0.5
"""Measured time of a plan: enough to tell plans apart that are not alike."""

ROUNDS = 5


def search(job: Job) -> None:
    """Do the step as far as it is not done and the config asks for it.

    Raises:
        ConfigError: the target or the backend is none that can be searched for.
        QuantlabError: samples, models or engines cannot be read, built or run.
    """
    if not job.config.search:
        job.folder.drop("search")
        return
    target = sought(job.config.targets, job.metrics())
    inputs = graph.inputs(job.prepared())

    def work() -> Sequence[Path]:
        known = analyze(job, samples=PRIOR)
        subject = Subject(
            prepared=job.prepared(),
            draft=draft(job),
            batches=lambda: job.held_back(inputs),
            output=job.output,
            precisions=job.precisions,
        )
        with opened(subject, target, _track(job, inputs)) as bench:
            found = find(bench, known.rows, target)
        job.progress.note(f"search: {len(found.plans)} plans, {found.builds} builds")
        repaired = outcome(job)  # which has read them
        judged_on = held_back(job, inputs) if repaired is None else repaired.held_back
        return [
            dump(job.file(RECORD), found, Searched),
            dump(job.file(SAMPLES), judged_on, HeldBack),
        ]

    made_from = search_from(job)
    if job.folder.stale("search", made_from) is None:
        recheck(job, "search", load(job.file(SAMPLES), HeldBack), inputs)
    job.folder.step("search", made_from, work)


def search_from(job: Job) -> Mapping[str, Any]:
    """Return what the step depends on."""
    inputs = graph.inputs(job.prepared())
    evaluation = job.config.evaluation
    return {
        **analysis_from(job),
        "targets": dict(job.config.targets),
        "metrics": [str(metric) for metric in evaluation.metrics] if evaluation else [],
        "precisions": job.precisions,
        "backend": job.config.engines.model_dump(mode="json"),
        "backend version": job.engine.available(),
        "batch": max(sizes(job, inputs)),
    }


def searched(job: Job) -> Searched | None:
    """Return what the search found, None where the config asks for none."""
    return load(job.file(RECORD), Searched) if job.config.search else None


def searched_on(job: Job) -> HeldBack | None:
    """Return the samples that the search judged on, None where the config asks for none."""
    return load(job.file(SAMPLES), HeldBack) if job.config.search else None


def planned(job: Job, model: ir.Model, precision: Precision) -> ir.Model:
    """Return the model of a precision with the nodes marked that the search keeps from it."""
    found = searched(job)
    if found is None:
        return model
    names = [str(node.name) for node in model.graph.all_nodes()]
    wanted = layers(found, precision)
    return pin(model, {p: k for p, k in wanted.items() if any(fnmatchcase(n, p) for n in names)})


def _track(job: Job, inputs: Inputs) -> Track:
    size = max(sizes(job, inputs))
    context = BuildContext(
        cache=job.file("calibration.cache"),
        shapes=shapes(job, inputs) if job.engine.recipe.ranges else {},
        batches=partial(calibration_batches, job, inputs),
        progress=job.progress,
    )
    schedule = Schedule(batches=(size,), seconds=SECONDS, rounds=ROUNDS, warmup_seconds=0.1)
    return Track(job.engine, context, batch(job, inputs, size), schedule)
