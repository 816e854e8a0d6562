"""Make the model of each precision and build its engine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnx_ir as ir

from quantlab.engines.base import Runner
from quantlab.files import sha256
from quantlab.graph import model as graph
from quantlab.graph.files import digest, files
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.placement import place
from quantlab.graph.to_fp16 import to_fp16
from quantlab.records import Build, Precision
from quantlab.saved import dump, load
from quantlab.steps.calibrate import cached_thresholds
from quantlab.steps.job import Job

SOURCES: Mapping[Precision, str] = {
    "fp32": "prepared.onnx",
    "fp16": "fp16.onnx",
    "int8": "int8.onnx",
}
"""The ONNX file that each engine is built from, in the run folder."""


def build(job: Job) -> tuple[Build, ...]:
    """Build every engine of the config that is not built yet, and return all of them."""
    model = job.prepared()
    return tuple(_build(job, model, precision) for precision in job.precisions)


def built(job: Job) -> tuple[Build, ...]:
    """Return the engines of the config as the last build left them."""
    return tuple(load(job.need(_record(p), "build"), Build) for p in job.precisions)


@contextmanager
def running(job: Job) -> Iterator[dict[Precision, Runner]]:
    """Open every engine of the config."""
    with ExitStack() as stack:
        yield {
            engine.precision: stack.enter_context(job.engine.open(engine, job.folder.path))
            for engine in built(job)
        }


def files_of(job: Job) -> dict[str, Mapping[str, str]]:
    """Return the SHA-256 of every engine's files, by precision: what measurements depend on."""
    return {engine.precision: engine.files for engine in built(job)}


def _build(job: Job, model: ir.Model, precision: Precision) -> Build:
    source = job.file(SOURCES[precision])
    made_from = {
        "prepared model": digest(job.file("prepared.onnx")),
        "backend": job.config.engines.backend,
        "backend parameters": dict(job.config.engines.parameters),
        "backend version": job.engine.available(),
    }
    if precision == "int8":
        made_from["calibration cache"] = sha256(job.need("calibration.cache", "calibrate"))

    def work() -> Sequence[Path]:
        if precision != "fp32":
            graph.save(_convert(job, model, precision), source)
        engine = job.engine.build(source, precision, job.file("engines"))
        dump(job.file(_record(precision)), engine, Build)
        made = [job.folder.path / name for name in engine.files]
        kept = [] if precision == "fp32" else files(source)
        return [*kept, *made, job.file(_record(precision))]

    with job.progress.track(f"building {precision}", total=1, unit="engine") as advance:
        job.folder.step(f"build {precision}", made_from, work)
        advance(1)
    return load(job.file(_record(precision)), Build)


def _convert(job: Job, model: ir.Model, precision: Precision) -> ir.Model:
    if precision == "fp16":
        converted = to_fp16(model)
        for tensor in converted.clipped:
            job.progress.warn(
                f"weights {tensor!r} do not fit FP16's range of 65504 and were clipped"
            )
        return converted.model
    policy = job.engine.policy
    return insert_qdq(model, place(model, policy), cached_thresholds(job, model), policy=policy)


def _record(precision: Precision) -> str:
    return f"engines/{precision}.json"
