"""Prepare the model, collect histograms, decide thresholds, write the calibration cache."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab import __version__, cache, manifest
from quantlab.collect import gather
from quantlab.config import Calibration
from quantlab.decide import algorithm, follow, knobs
from quantlab.engines.host import versions
from quantlab.errors import ConfigError
from quantlab.files import sha256
from quantlab.graph import model as graph
from quantlab.graph.files import digest, files
from quantlab.graph.placement import Placement
from quantlab.graph.prepare import prepare
from quantlab.histogram import Histogram
from quantlab.records import TensorThreshold
from quantlab.registry import nearest
from quantlab.saved import load
from quantlab.search.target import sought, unlabelled
from quantlab.steps.collect import collect, collect_from
from quantlab.steps.decided import decided
from quantlab.steps.job import Inputs, Job, described
from quantlab.steps.placing import CACHE_POLICY, placements, ties, wanted
from quantlab.steps.repair import (
    RECORD,
    histograms,
    int8_source,
    outcome,
    repair,
    repair_from,
    source,
)

NEWEST_READER = "10.16.1"
"""Last TensorRT that has calibrators: who a cache is written for unless the config says."""


def calibrate(job: Job) -> None:
    """Do the steps ``prepare``, ``collect`` and ``decide`` as far as they are not done.

    Raises:
        QuantlabError: the model, the samples or what the config asks for cannot be used.
    """
    _header(job.config.calibration)  # a version that reads no cache is refused before the work
    prepare_model(job)
    model = job.prepared()
    _check_output(job, model)
    _check_search(job, graph.inputs(model))
    collect(job, model, wanted(job, placements(job, model)))
    repair(job, model)
    _decide(job)


def _check_output(job: Job, model: ir.Model) -> None:
    """Check that the model has the output that repairs, search and evaluation judge."""
    name = job.output
    known = [str(value.name) for value in model.graph.outputs]
    if name is not None and name not in known:
        raise ConfigError(
            f"evaluation.output: the model has no output {name!r}; {nearest(name, known)}"
        )


def _check_search(job: Job, inputs: Inputs) -> None:
    """Check that the search, if there is one, can judge by the calibration samples."""
    if not job.config.search:
        return
    target = sought(job.config.targets, job.metrics())
    first = next(job.batches(job.config.calibration, inputs))
    if target.metric.compares == "labels" and first.labels is None:
        raise unlabelled(target)


def check_calibrated(job: Job) -> None:
    """Check that the calibration in the run folder is one by the config as it stands.

    Whether the samples are the same is left to ``calibrate``, which reads them.

    Raises:
        OutputError: a step is missing or stale; says why.
    """
    job.require("prepare", _prepare_from(job), "calibrate")
    model = job.prepared()
    job.require("collect", collect_from(job, wanted(job, placements(job, model))), "calibrate")
    if job.config.tunes:
        job.require("repair", repair_from(job, model), "calibrate")
    job.require("decide", _decide_from(job, placements(job, int8_source(job))), "calibrate")


def thresholds(
    job: Job, placed: Mapping[str, Placement], histograms: Mapping[str, Histogram]
) -> dict[str, TensorThreshold]:
    """Return every collected tensor's threshold: as chosen, or by the config's method."""
    chosen = outcome(job)
    if chosen is not None:
        return {threshold.tensor: threshold for threshold in chosen.thresholds}
    return decided(job, ties(placed), histograms)


def _prepare_from(job: Job) -> Mapping[str, Any]:
    return {"model": digest(job.config.model)}


def prepare_model(job: Job) -> None:
    """Do the step ``prepare`` if it is not done.

    Raises:
        ModelError: the model cannot be read or prepared.
    """
    original = job.config.model

    def work() -> Sequence[Path]:
        result = prepare(graph.load(original))
        target = job.file("prepared.onnx")
        graph.save(result.model, target)
        graph.validate(target)
        job.progress.note(f"prepared {original.name}: {', '.join(result.applied) or 'unchanged'}")
        return files(target)

    job.folder.step("prepare", _prepare_from(job), work)


def _decide_from(job: Job, placed: Mapping[str, Placement]) -> Mapping[str, Any]:
    config = job.config.calibration
    chosen = outcome(job)
    return {
        "histograms": sha256(job.file("histograms.npz")),
        "choice": None if chosen is None else sha256(job.file(RECORD)),
        "batches' maxima": sha256(job.file("batch_amax.npz")),
        "collection": sha256(job.file("collection.json")),  # the manifest tells of it
        "tied tensors": [ties(placed), dict(placed[CACHE_POLICY].derived)],
        "method": config.method,
        "method parameters": dict(config.parameters),
        "nonfinite": config.nonfinite,
        "TensorRT version": str(_header(config)),
    }


def _decide(job: Job) -> None:
    placed = placements(job, int8_source(job))
    target = job.file("calibration.cache")

    def work() -> Sequence[Path]:
        counted = histograms(job)
        found = thresholds(job, placed, counted)
        found = follow(found, placed[CACHE_POLICY].derived)
        cache.write(target, cache.from_thresholds(found, _header(job.config.calibration)))
        record = replace(
            _manifest(job, placed),
            tensors=tuple(found),
            collected=tuple(counted),
            cache_sha256=sha256(target),
        )
        record.save(manifest.beside(target))
        return [target, manifest.beside(target)]

    job.folder.step("decide", _decide_from(job, placed), work)


def cached_thresholds(job: Job, model: ir.Model) -> dict[str, TensorThreshold]:
    """Return the thresholds that the calibration cache holds, for the job's policy.

    Args:
        job: calibrated.
        model: that INT8 is made of.

    Raises:
        CacheError: the cache is stale, was altered, or lacks a tensor; says what changed.
    """
    target = job.file("calibration.cache")
    placed = placements(job, model)
    needed = placed[job.policy].tensors
    expected = _manifest(job, placed)
    for note in manifest.check(target, manifest.beside(target), expected, needed):
        job.progress.note(note)
    counted = histograms(job)
    found = cache.thresholds_from(cache.read(target))
    return {t: replace(found[t], minimum=counted[t].minimum) for t in needed}


def _manifest(job: Job, placed: Mapping[str, Placement]) -> manifest.Manifest:
    """Return what a calibration by the config as it stands would record."""
    config = job.config.calibration
    how = load(job.file("collection.json"), gather.Collected)
    graph_hash, weights_hash = manifest.model_digests(source(job))
    dataset = job.dataset(config.dataset)
    return manifest.Manifest(
        quantlab=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        graph_hash=graph_hash,
        weights_hash=weights_hash,
        data_hash=how.data_hash,
        samples=how.samples,
        preprocessing={
            key: value
            for key, value in described(config.dataset).items()
            if not isinstance(getattr(dataset, key, None), Path)
        },
        method=config.method,
        knobs=_knobs(job, how.batch),
        tied=dict(placed[CACHE_POLICY].derived),
    )


def _knobs(job: Job, batch: int) -> dict[str, Any]:
    config = job.config.calibration
    found = knobs(config.method, config.parameters, nonfinite=config.nonfinite, batch=batch)
    if job.config.holds_back:
        found["held_back"] = config.held_back
    if job.config.tunes:
        repair = job.config.repair
        found["repair"] = repair if isinstance(repair, str) else list(repair)
    return found


def _header(config: Calibration) -> cache.Header:
    reader = config.tensorrt or _installed() or NEWEST_READER
    return cache.header_for(reader, algorithm(config.method))


def _installed() -> str | None:
    """Return the version of an installed TensorRT that reads caches."""
    found = versions().get("tensorrt")
    return found if found and int(found.split(".")[0]) < 11 else None
