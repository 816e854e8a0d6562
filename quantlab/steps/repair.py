"""The step ``repair``: choose thresholds by what comes out, change model and weights for INT8.

It stands between ``collect`` and ``decide``, where the config asks for method ``auto`` or for
repairs.  FP32 and FP16 stay the prepared model's; INT8 is made of what this step leaves.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from quantlab.collect import batch_amax
from quantlab.collect import saved as histogram_file
from quantlab.collect.channels import channel_amax
from quantlab.config import AUTO
from quantlab.datasets.base import Batch
from quantlab.files import sha256
from quantlab.findings import Repaired, Trial
from quantlab.graph import corrections as corrections_file
from quantlab.graph import model as graph
from quantlab.graph.channel_sets import Ranges, axes
from quantlab.graph.corrections import NONE, Corrections
from quantlab.graph.files import digest, files
from quantlab.histogram import Histogram
from quantlab.records import TensorThreshold, Thresholds
from quantlab.repair import CORRECTING, COSTLY, REPAIRS, RESCALING
from quantlab.repair.auto import Order, Tuning, record
from quantlab.repair.base import Bench
from quantlab.saved import dump, load
from quantlab.simulate import Arrays, Draft, Judge
from quantlab.steps.collect import count
from quantlab.steps.decided import decided
from quantlab.steps.held_back import HeldBack, held_back, recheck
from quantlab.steps.job import Inputs, Job, marked
from quantlab.steps.placing import placements, ties, wanted
from quantlab.steps.unmet import misses, unmet_from

RECORD = "repair.json"
MODEL = "repaired.onnx"
HISTOGRAMS = "repaired.npz"
CORRECTIONS = "corrections.npz"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the step leaves.

    Attributes:
        model: file of the float model that INT8 is made of.
        histograms: file of its tensors' histograms.
        thresholds: of every collected tensor, in graph order.
        corrected: whether corrections.npz holds corrections.
        held_back: the samples that were judged on.
        found: what was tried.
    """

    model: str
    histograms: str
    thresholds: tuple[TensorThreshold, ...]
    corrected: bool
    held_back: HeldBack
    found: Repaired


def repair(job: Job, model: ir.Model) -> None:
    """Do the step as far as it is not done and the config asks for it.

    Args:
        job: with the histograms of ``model``.
        model: the prepared model, marked.

    Raises:
        QuantlabError: samples or models cannot be read or run.
    """
    if not job.config.tunes:
        job.folder.drop("repair")
        return
    made_from = repair_from(job, model)
    inputs = graph.inputs(model)
    if job.folder.stale("repair", made_from) is None:
        known = load(job.file(RECORD), Outcome)
        recheck(job, "repair", known.held_back, inputs)
    if job.folder.stale("repair", made_from) is not None:
        job.folder.drop("repair")  # another choice may leave other files
    job.folder.step("repair", made_from, lambda: _work(job, model))


def repair_from(job: Job, model: ir.Model) -> Mapping[str, Any]:
    """Return what the step depends on."""
    config = job.config
    return {
        "prepared model": digest(job.file("prepared.onnx")),
        "histograms": sha256(job.file("histograms.npz")),
        "batches' maxima": sha256(job.file("batch_amax.npz")),
        "held back": config.calibration.held_back,
        "method": config.calibration.method,
        "method parameters": dict(config.calibration.parameters),
        "nonfinite": config.calibration.nonfinite,
        "repair": config.repair,
        "judged output": job.output,
        "policy": job.policy,
        "tied tensors": ties(placements(job, model)),
        "layers": [list(pair) for pair in config.quantization.layers.items()],
        "pins": dict(job.engine.recipe.pins),
        **unmet_from(job),
    }


def outcome(job: Job) -> Outcome | None:
    """Return what the step left, None where the config asks for none."""
    return load(job.file(RECORD), Outcome) if job.config.tunes else None


def source(job: Job) -> Path:
    """Return the file of the float model that INT8 is made of."""
    found = outcome(job)
    return job.file("prepared.onnx" if found is None else found.model)


def int8_source(job: Job) -> ir.Model:
    """Return the float model that INT8 is made of, with the nodes marked that have a type."""
    return marked(graph.reload(source(job)), job.config, job.engine)


def histograms(job: Job) -> dict[str, Histogram]:
    """Return the histograms of the model that INT8 is made of."""
    found = outcome(job)
    if found is not None and found.histograms == HISTOGRAMS:
        return histogram_file.load(job.file(HISTOGRAMS))
    return _collected(job)


def corrections(job: Job) -> Corrections:
    """Return the corrections of weights and biases for INT8."""
    found = outcome(job)
    if found is None or not found.corrected:
        return NONE
    return corrections_file.load(job.file(CORRECTIONS))


def _work(job: Job, model: ir.Model) -> Sequence[Path]:
    inputs = graph.inputs(model)
    first = _draft(job, model)
    judged = () if job.output is None else (job.output,)
    judge = Judge.make(model, lambda: _arrays(job.held_back(inputs)), judged)
    names = _names(job)
    order = Order(
        rescaling=[made() for name, made in RESCALING.items() if name in names],
        correcting=[made() for name, made in CORRECTING.items() if name in names],
        costly=[made() for name, made in COSTLY.items() if name in names],
        choose=job.config.calibration.method == AUTO,
        only_gains=job.config.repair == AUTO,
        ties=lambda found: ties(placements(job, found)),
        misses=lambda found: misses(job, model, found),
    )
    tuning = Tuning(first, _bench(job, inputs), judge, order, job.progress.note)
    tuning.run()
    return _save(job, first, tuning.draft, tuple(tuning.trials))


def _names(job: Job) -> Container[str]:
    asked = job.config.repair
    if isinstance(asked, str):
        return REPAIRS if asked == AUTO else ()
    return asked


def _collected(job: Job) -> dict[str, Histogram]:
    """Return the histograms of the prepared model."""
    whole = histogram_file.load(job.file("histograms.npz"))
    return batch_amax.attach(whole, job.file("batch_amax.npz"))


def _draft(job: Job, model: ir.Model) -> Draft:
    found, placed = _collected(job), placements(job, model)
    thresholds = decided(job, ties(placed), found)
    return Draft(model, job.policy, placed[job.policy], found, thresholds)


def _bench(job: Job, inputs: Inputs) -> Bench:
    def decide(model: ir.Model, found: Mapping[str, Histogram]) -> Thresholds:
        return decided(job, ties(placements(job, model)), found)

    def collect(model: ir.Model, tensors: Sequence[str]) -> Mapping[str, Histogram]:
        # The cache is of TensorRT's placement whatever the engine: a product that a repair put in
        # may be quantized there alone.
        names = dict.fromkeys((*tensors, *wanted(job, placements(job, model))))
        with _written(job, model) as path:
            found = count(job, path, inputs, tuple(names))
        columns = zip(found.histograms.items(), found.batch_amax.T, strict=True)
        return {name: replace(one, batch_amax=amax) for (name, one), amax in columns}

    @lru_cache(maxsize=1)  # several repairs ask it of a model that none of them changed
    def channels(model: ir.Model) -> Ranges:
        found = axes(model)
        if not found:
            return {}
        with _written(job, model) as path:
            return channel_amax(path, found, _arrays(job.fitting(inputs)))

    return Bench(lambda: _arrays(job.fitting(inputs)), collect, decide, channels)


@contextmanager
def _written(job: Job, model: ir.Model) -> Iterator[Path]:
    """Write a model for the block."""
    with TemporaryDirectory(prefix=".trial.", suffix=".partial", dir=job.folder.path) as folder:
        path = Path(folder) / "trial.onnx"
        graph.save(model, path)
        yield path


def _save(job: Job, first: Draft, best: Draft, trials: tuple[Trial, ...]) -> Sequence[Path]:
    written: list[Path] = []
    moved = best.model is not first.model
    if moved:
        graph.save(best.model, job.file(MODEL))
        graph.validate(job.file(MODEL))
        histogram_file.save(job.file(HISTOGRAMS), best.histograms)
        written += [*files(job.file(MODEL)), job.file(HISTOGRAMS)]
    if best.corrections:
        corrections_file.save(job.file(CORRECTIONS), best.corrections)
        written.append(job.file(CORRECTIONS))
    judged_on = held_back(job, graph.inputs(first.model))
    result = Outcome(
        model=MODEL if moved else "prepared.onnx",
        histograms=HISTOGRAMS if moved else "histograms.npz",
        thresholds=tuple(best.thresholds.values()),
        corrected=bool(best.corrections),
        held_back=judged_on,
        found=record(judged_on.samples, trials),
    )
    return [*written, dump(job.file(RECORD), result, Outcome)]


def _arrays(batches: Iterator[Batch]) -> Iterator[Arrays]:
    for batch in batches:
        yield batch.arrays
