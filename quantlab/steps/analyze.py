"""The step ``analyze``: what quantizing each layer, tensor and weight costs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantlab.analyze import analyze as analysis_of
from quantlab.analyze import write_csv
from quantlab.datasets.base import Batch
from quantlab.datasets.batching import batch_size, batches, take
from quantlab.datasets.fingerprint import fingerprint
from quantlab.files import sha256
from quantlab.findings import Analysis
from quantlab.graph import model as graph
from quantlab.graph.files import digest
from quantlab.saved import dump, load
from quantlab.steps.draft import draft
from quantlab.steps.job import Inputs, Job
from quantlab.steps.repair import CORRECTIONS, outcome, source

SAMPLES = 64
"""Samples that tell the order of the rows."""

BATCH = 16
"""Samples a batch: the tensors of one batch are in memory."""

RECORD = "analysis.json"


def analyze(job: Job, *, samples: int = SAMPLES) -> Analysis:
    """Do the step as far as it is not done, and return what it found.

    Args:
        job: calibrated.
        samples: how many calibration samples to run, those held back first.

    Raises:
        QuantlabError: the samples or the model cannot be read or run.
    """
    inputs = graph.inputs(job.prepared())
    made_from = {
        **analysis_from(job),
        "samples": samples,
        "data": fingerprint(_batches(job, inputs, samples), labelled=True).hexdigest(),
    }
    metrics = job.metrics()

    def work() -> Sequence[Path]:
        start, stop, _ = _places(job, inputs, samples)
        with job.progress.track("analyzing", total=stop - start, unit="samples") as advance:
            found = analysis_of(
                draft(job),
                _batches(job, inputs, samples),
                metric=metrics[0] if metrics else None,
                output=job.output,
                advance=advance,
            )
        return [
            dump(job.file(RECORD), found, Analysis),
            write_csv(job.file("analysis.csv"), found),
        ]

    job.folder.step("analyze", made_from, work)
    return load(job.file(RECORD), Analysis)


def analysis(job: Job) -> Analysis | None:
    """Return what the step found, None where it was not done since the calibration."""
    done = job.folder.steps().get("analyze")
    if done is None:
        return None
    left = {key: done.made_from.get(key) for key in ("data", "samples")}
    if job.folder.stale("analyze", {**analysis_from(job), **left}) is not None:
        return None
    return load(job.file(RECORD), Analysis)


def analysis_from(job: Job) -> Mapping[str, Any]:
    """Return what the analysis depends on beside its samples."""
    chosen = outcome(job)
    evaluation = job.config.evaluation
    return {
        "model": digest(source(job)),
        "calibration cache": sha256(job.file("calibration.cache")),
        "corrections": sha256(job.file(CORRECTIONS)) if chosen and chosen.corrected else None,
        "policy": job.policy,
        "layers": [list(pair) for pair in job.config.quantization.layers.items()],
        "pins": dict(job.engine.recipe.pins),
        "metric": str(evaluation.metrics[0]) if evaluation else None,
        "judged output": job.output,
    }


def _batches(job: Job, inputs: Inputs, most: int) -> Iterator[Batch]:
    """Yield the last calibration samples, which are those that are held back where any are."""
    start, stop, size = _places(job, inputs, most)
    with job.samples(job.config.calibration.dataset, inputs) as samples:
        yield from batches(samples.part(start, stop), inputs, size=size, count=stop - start)


def _places(job: Job, inputs: Inputs, most: int) -> tuple[int, int, int]:
    """Return the first place, the one behind the last, and the size of a batch."""
    config = job.config.calibration
    with job.samples(config.dataset, inputs) as samples:
        stop = take(samples, config.samples)
    unit = batch_size(inputs, 1)  # a fixed batch axis takes whole batches alone
    start = max(0, stop - max(most // unit, 1) * unit)
    return start, stop, batch_size(inputs, min(BATCH, config.batch))
