"""Put together what the other steps saved, and write the report."""

from datetime import UTC, datetime

from quantlab import __version__, accuracy, assemble, reports, targets
from quantlab.accuracy import Scores
from quantlab.collect.gather import Collected
from quantlab.graph import model as graph
from quantlab.graph.files import digest
from quantlab.graph.followers import follow
from quantlab.graph.placement import place
from quantlab.measured import Accuracy
from quantlab.records import CalibrationSummary, ClassReport, Precision, Report
from quantlab.saved import load
from quantlab.steps.analyze import analysis
from quantlab.steps.build import built
from quantlab.steps.calibrate import thresholds
from quantlab.steps.evaluate import Evaluated, Inspection, Timings
from quantlab.steps.job import Job
from quantlab.steps.placing import placements
from quantlab.steps.repair import histograms as counted
from quantlab.steps.repair import int8_source, outcome
from quantlab.steps.search import planned, searched, searched_on

SCHEMA_VERSION = 1


def report(job: Job) -> Report:
    """Write report.json, .md, .html and tables, and return the report."""
    found = _report(job)
    reports.write(found, job.folder.path)
    return found


def _report(job: Job) -> Report:
    model = int8_source(job)
    placed = placements(job, model)
    built_from = planned(job, model, "int8")
    placement = place(built_from, job.policy)
    histograms = counted(job)
    decided = thresholds(job, placed, histograms)
    tensors = tuple(assemble.tensor(histograms[name], found) for name, found in decided.items())
    how = load(job.file("collection.json"), Collected)
    chosen = outcome(job)
    repaired = None if chosen is None else chosen.found
    judged, classes, evaluated = _judged(job)
    inspection = load(job.file("inspection.json"), Inspection)
    timings: Timings = {}
    if job.config.benchmark is not None:
        timings = load(job.file("benchmark.json"), Timings)
    engines = tuple(
        assemble.engine(
            b, inspection[b.precision], judged.get(b.precision, ()), timings.get(b.precision, ())
        )
        for b in built(job)
    )
    facts = job.folder.facts()
    seconds = job.folder.seconds()
    return Report(
        schema_version=SCHEMA_VERSION,
        quantlab=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=graph.facts(graph.reload(job.config.model), job.config.model),
        engines=engines,
        tensors=tensors,
        calibration=_calibration(job, how, len(tensors)),
        histograms=assemble.drawn(histograms, tensors),
        placement=placement.decisions,
        followers=follow(built_from, placement),
        classes=classes,
        targets=targets.judge(job.config.targets, engines),
        warnings=assemble.doubts(repaired, searched(job))
        + assemble.warnings(
            engines,
            tensors,
            histograms,
            same_samples=evaluated is not None and _same_samples(job, evaluated, how),
            skipped=tuple(dict.fromkeys((*how.skipped, *(evaluated.skipped if evaluated else ())))),
        ),
        host=facts["host"],
        versions=facts["versions"],
        config=facts["config"],
        command=f"quantlab run {facts['config_file']}",
        timings=seconds,
        analysis=analysis(job),
        repair=repaired,
        search=searched(job),
    )


def _calibration(job: Job, how: Collected, tensors: int) -> CalibrationSummary:
    return CalibrationSummary(
        method=job.config.calibration.method,
        samples=how.samples,
        batch=how.batch,
        seconds=how.seconds + job.folder.seconds()["decide"],
        inference_seconds=how.inference_seconds,
        peak_rss_bytes=how.peak_rss_bytes,
        model_hash=digest(job.file("prepared.onnx")),
        data_hash=how.data_hash,
        tensors=tensors,
    )


def _same_samples(job: Job, evaluated: Evaluated, how: Collected) -> bool:
    """Whether samples were used for both; both take the first ones of their dataset."""
    config, chosen = job.config, outcome(job)
    seen = [how.data_hash]
    for held in (None if chosen is None else chosen.held_back, searched_on(job)):
        if held is not None:
            seen += [held.data_hash, held.whole_hash]
    same = config.evaluation is not None and config.evaluation.dataset == config.calibration.dataset
    return same or evaluated.data_hash in seen


def _judged(
    job: Job,
) -> tuple[dict[Precision, tuple[Accuracy, ...]], tuple[ClassReport, ...], Evaluated | None]:
    if job.config.evaluation is None:
        return {}, (), None
    scores = Scores.load(job.file("scores.npz"))
    evaluated = load(job.file("evaluation.json"), Evaluated)
    judged = accuracy.summarize(scores, job.metrics())
    return judged, accuracy.per_class(scores, evaluated.class_names), evaluated
