"""Make the model of each precision and build its engine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab.engines.base import BuildContext, Runner
from quantlab.files import sha256
from quantlab.graph import model as graph
from quantlab.graph.files import digest, files
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.placement import place
from quantlab.graph.to_fp16 import to_fp16
from quantlab.records import Build, Precision
from quantlab.saved import dump, load
from quantlab.steps.calibrate import cached_thresholds
from quantlab.steps.job import Inputs, Job
from quantlab.steps.repair import RECORD, corrections, int8_source, outcome, source
from quantlab.steps.search import RECORD as SEARCH
from quantlab.steps.search import planned, search, search_from
from quantlab.steps.shapes import calibration_batches, shapes

SOURCES: Mapping[Precision, str] = {
    "fp32": "prepared.onnx",
    "fp16": "fp16.onnx",
    "int8": "int8.onnx",
}
"""The ONNX file that each engine is built from, in the run folder.  An engine that takes its INT8
scales from the calibration cache is built from the prepared model."""


def build(job: Job) -> tuple[Build, ...]:
    """Build every engine of the config that is not built yet, and return all of them."""
    search(job)
    model = job.prepared()
    return tuple(_build(job, model, precision) for precision in job.precisions)


def check_built(job: Job) -> None:
    """Check that the engines in the run folder are those of the config as it stands.

    Raises:
        OutputError: one is missing or stale; says why.
    """
    if job.config.search:
        job.require("search", search_from(job), "build")
    for precision in job.precisions:
        job.require(_step(precision), _build_from(job, precision), "build")


def built(job: Job) -> tuple[Build, ...]:
    """Return the engines of the config as the last build left them."""
    return tuple(load(job.file(_record(p)), Build) for p in job.precisions)


@contextmanager
def running(job: Job) -> Iterator[dict[Precision, Runner]]:
    """Open every engine of the config."""
    with ExitStack() as stack:
        yield {
            engine.precision: stack.enter_context(job.engine.open(engine, job.folder.path))
            for engine in built(job)
        }


def measured(job: Job) -> dict[str, Any]:
    """Return what every measurement of the engines depends on."""
    return _backend(job) | {"engines": {engine.precision: engine.files for engine in built(job)}}


def _backend(job: Job) -> dict[str, Any]:
    return {
        "backend": job.config.engines.backend,
        "backend parameters": dict(job.config.engines.parameters),
        "backend version": job.engine.available(),
    }


def _build_from(job: Job, precision: Precision) -> Mapping[str, Any]:
    made_from = _backend(job) | {"prepared model": digest(job.file("prepared.onnx"))}
    if precision != "fp32" and job.config.search:
        made_from["search"] = sha256(job.file(SEARCH))
    if precision != "fp32":
        made_from["layers"] = [list(pair) for pair in job.config.quantization.layers.items()]
    if precision == "int8":
        made_from["policy"] = job.policy
        made_from["calibration cache"] = sha256(job.file("calibration.cache"))
        made_from["recipe"] = asdict(job.engine.recipe)
        chosen = outcome(job)
        made_from["choice"] = None if chosen is None else sha256(job.file(RECORD))
    return made_from


def _build(job: Job, model: ir.Model, precision: Precision) -> Build:
    origin = _source(job, precision)
    record = job.file(_record(precision))

    def work() -> Sequence[Path]:
        with job.progress.track(f"building {precision}", total=1, unit="engine") as advance:
            notes = _convert(job, model, precision)
            context = _context(job, graph.inputs(model), precision)
            engine = job.engine.build(origin, precision, job.file("engines"), context)
            dump(record, replace(engine, notes=(*notes, *engine.notes)), Build)
            advance(1)
        made = [job.file(name) for name in engine.files]
        converted = precision != "fp32" and origin == job.file(SOURCES[precision])
        kept = files(origin) if converted else ()
        return [*kept, *made, record]

    job.folder.step(_step(precision), _build_from(job, precision), work)
    return load(record, Build)


def _source(job: Job, precision: Precision) -> Path:
    """Return the file that an engine is built from; who reads the cache takes the float model."""
    implicit = precision == "int8" and not job.engine.recipe.explicit
    return source(job) if implicit else job.file(SOURCES[precision])


def _context(job: Job, inputs: Inputs, precision: Precision) -> BuildContext:
    return BuildContext(
        cache=job.file("calibration.cache") if precision == "int8" else None,
        shapes=shapes(job, inputs) if job.engine.recipe.ranges else {},
        batches=partial(calibration_batches, job, inputs),
        progress=job.progress,
    )


def _convert(job: Job, model: ir.Model, precision: Precision) -> tuple[str, ...]:
    """Write the ONNX file of a precision; return what a reader must know of it."""
    notes: tuple[str, ...] = ()
    if precision == "fp16":
        converted = to_fp16(planned(job, model, precision))
        graph.save(converted.model, job.file(SOURCES[precision]))
        notes = tuple(
            f"weights {tensor!r} exceed the largest FP16 number, 65504, and were clipped"
            for tensor in converted.clipped
        )
    elif precision == "int8":
        origin, recipe = int8_source(job), job.engine.recipe
        thresholds = cached_thresholds(job, origin)  # checks the cache, whoever reads it
        if recipe.explicit:
            half = recipe.around == "fp16"
            wanted = planned(job, origin, precision)
            made = insert_qdq(
                wanted,
                place(wanted, job.policy),
                thresholds,
                policy=job.policy,
                float16=half,
                corrections=corrections(job),
            )
            graph.save(to_fp16(made).model if half else made, job.file(SOURCES[precision]))
    return notes


def _step(precision: Precision) -> str:
    return f"build {precision}"


def _record(precision: Precision) -> str:
    return f"engines/{precision}.json"
