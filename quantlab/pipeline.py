"""The only wiring: the steps in order, under the names that the commands have.

    prepare -> collect -> repair -> decide -> analyze -> search -> build -> evaluate -> inspect
            -> benchmark -> report

``repair`` and ``search`` are there where the config asks for them; the search needs the analysis,
which is also a command of its own.

A step is skipped while the files it read and the part of the config that concerns it are as they
were when it last finished (runfolder.py), so ``run`` on a folder that is half done goes on there.
``build``, ``evaluate`` and ``report`` refuse to start from a step that is missing or out of date.

Every function takes the config file, and ``output`` in place of the config's run folder.  Each
raises a QuantlabError that says what is wrong and what to do.
"""

from dataclasses import dataclass
from pathlib import Path

from quantlab import reports
from quantlab import steps as step
from quantlab.errors import TargetMissed
from quantlab.findings import Analysis
from quantlab.progress import Progress, Silent
from quantlab.records import Build, Report
from quantlab.visible import figure


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its folder and its report."""

    folder: Path
    report: Report


def run(config: Path | str, *, output: Path | None = None, progress: Progress | None = None) -> Run:
    """Do the whole job and return its report; a target that was missed is in ``report.targets``."""
    with step.started(Path(config), output=output, progress=progress or Silent()) as job:
        job.engine.runnable()  # what cannot be finished is not begun
        step.prepare_model(job)
        step.check_samples(job)
        step.calibrate(job)
        step.build(job)
        step.evaluate(job)
        return Run(job.folder.path, step.report(job))


def calibrate(
    config: Path | str, *, output: Path | None = None, progress: Progress | None = None
) -> Path:
    """Prepare the model, collect histograms, decide; return the calibration cache's path."""
    with step.started(Path(config), output=output, progress=progress or Silent()) as job:
        step.calibrate(job)
        return job.file("calibration.cache")


def analyze(
    config: Path | str,
    *,
    output: Path | None = None,
    progress: Progress | None = None,
    samples: int = step.SAMPLES,
) -> Analysis:
    """Say what quantizing each layer, tensor and weight costs, on calibration samples.

    What of the calibration is not done is done first.  The run folder gets analysis.json and .csv.
    """
    with step.started(Path(config), output=output, progress=progress or Silent()) as job:
        step.calibrate(job)
        return step.analyze(job, samples=samples)


def build(
    config: Path | str,
    *,
    output: Path | None = None,
    progress: Progress | None = None,
    targets: str = "",
) -> tuple[Build, ...]:
    """Build the engines from the calibration that the run folder holds.

    ``targets``, e.g. "sm86,sm89", is in place of the config's ``targets`` for TensorRT-RTX.
    """
    told = progress or Silent()
    with step.started(Path(config), output=output, progress=told, targets=targets) as job:
        job.engine.available()
        step.check_calibrated(job)
        return step.build(job)


def evaluate(
    config: Path | str, *, output: Path | None = None, progress: Progress | None = None
) -> Path:
    """Measure the engines that the run folder holds; return the folder."""
    with step.started(Path(config), output=output, progress=progress or Silent()) as job:
        job.engine.runnable()
        step.check_calibrated(job)
        step.check_built(job)
        step.evaluate(job)
        return job.folder.path


def report(
    config: Path | str, *, output: Path | None = None, progress: Progress | None = None
) -> Run:
    """Write the report of what the run folder holds.

    ``config`` may also be a run folder: then its report.json is rendered again.
    """
    source = Path(config)
    if source.is_dir():
        found = reports.load(source / "report.json")
        reports.write(found, output or source)
        return Run(output or source, found)
    with step.started(source, output=output, progress=progress or Silent()) as job:
        step.check_calibrated(job)
        step.check_built(job)
        step.check_evaluated(job)
        return Run(job.folder.path, step.report(job))


def check_targets(found: Report) -> None:
    """Raise TargetMissed, naming every target of the config that INT8 missed."""
    missed = [target for target in found.targets if not target.met]
    if missed:
        listed = "; ".join(
            f"{t.name}: limit {figure(t.limit)}, came {figure(t.value)}" for t in missed
        )
        raise TargetMissed(f"{len(missed)} of {len(found.targets)} targets missed: {listed}")
