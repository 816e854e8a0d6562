"""Whether INT8 misses a target of the config on the samples held back.

``repair: auto`` asks before it tries what costs speed.

Limits: a target on labels is left out where the calibration samples have none, and one on speed
        always.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from quantlab.config import AUTO
from quantlab.graph import model as graph
from quantlab.search.judging import Judging
from quantlab.search.target import Target, sought
from quantlab.simulate import Draft
from quantlab.steps.job import Job
from quantlab.targets import SPEEDUP


def misses(job: Job, prepared: ir.Model, draft: Draft) -> bool:
    """Return whether a draft misses a target.

    Raises:
        QuantlabError: the samples cannot be read, run or judged.
    """
    int8 = draft.int8()
    return any(_missed(job, prepared, int8, target) for target in _judged(job))


def unmet_from(job: Job) -> Mapping[str, Any]:
    """Return what the answer depends on beside draft and samples."""
    if job.config.repair != AUTO or not _accuracies(job):
        return {}
    return {
        "targets": _accuracies(job),
        "metrics": [str(metric) for metric in job.metrics()],
    }


def _accuracies(job: Job) -> dict[str, float]:
    return {name: limit for name, limit in job.config.targets.items() if name != SPEEDUP}


def _judged(job: Job) -> list[Target]:
    metrics = job.metrics()
    found = [sought({name: limit}, metrics) for name, limit in _accuracies(job).items()]
    first = next(job.held_back(graph.inputs(job.prepared())), None)
    labelled = first is not None and first.labels is not None
    wanting = [t.name for t in found if t.metric.compares == "labels" and not labelled]
    if wanting:
        job.progress.note(
            f"{', '.join(wanting)}: calibration samples without labels cannot tell whether this is "
            "missed, so for it no repair is tried that costs speed"
        )
    return [target for target in found if target.name not in wanting]


def _missed(job: Job, prepared: ir.Model, int8: ir.Model, target: Target) -> bool:
    inputs = graph.inputs(prepared)
    with TemporaryDirectory(prefix="quantlab.targets.") as folder:
        judging = Judging.make(
            prepared,
            lambda: job.held_back(inputs),
            target,
            output=job.output,
            folder=Path(folder),
        )
        value, finite = judging.score(int8)
        return not (finite and target.meets(value))
