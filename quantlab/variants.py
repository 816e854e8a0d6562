"""Every method from one collection: thresholds decided again, without inference.

A run folder that ``quantlab calibrate`` has finished holds all that another method needs: the
histograms, the largest magnitudes of the batches, the manifest, and in run.json the tensors that
share a scale.  So neither model, samples, engine nor config file is opened.  Beside each cache
stands the predicted error of every tensor, whose model ``calibrators/quality.py`` states.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quantlab import __version__, cache, files, manifest
from quantlab.calibrators import CALIBRATORS, Calibrator
from quantlab.calibrators.quality import clipped_fraction, sqnrs_db
from quantlab.collect import batch_amax
from quantlab.collect import saved as histogram_file
from quantlab.decide import algorithm, decide, follow, knobs
from quantlab.errors import ConfigError, OutputError
from quantlab.histogram import Histogram
from quantlab.records import TensorThreshold
from quantlab.registry import make
from quantlab.runfolder import Done, RunFolder, opened
from quantlab.saved import load

TABLE = "methods.csv"
"""Name of the table of all predictions."""

TUNED = ("held_back", "repair")
"""Knobs that tell what the histograms are of, whatever method decides."""

_TIED = TypeAdapter(tuple[list[tuple[str, ...]], dict[str, str]])
"""Groups that share a threshold, and followers, as step ``decide`` records them."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with its parameters."""

    method: str
    parameters: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name in tables, and its files' name.

        >>> Variant("percentile", {"percentile": 99.9}).label
        'percentile-percentile=99.9'
        """
        given = (
            f"-{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in sorted(self.parameters.items())
        )
        return re.sub(r"[^\w.=+-]", "_", self.method + "".join(given))

    def calibrator(self) -> Calibrator:
        """Return the calibrator.

        Raises:
            ConfigError: no such method or parameter, or a value that it does not take.
        """
        return make("method", CALIBRATORS, self.method, self.parameters)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a variant does to a tensor: a row of methods.csv.

    Attributes:
        variant: label.
        tensor: name.
        amax: largest finite magnitude seen.
        threshold: that the variant chose, for tied tensors together.
        clipped_fraction: share of the tensor's finite elements beyond it.
        sqnr_db: predicted signal-to-quantization-noise ratio; None if the tensor is all zero or
            without error.
    """

    variant: str
    tensor: str
    amax: float
    threshold: float
    clipped_fraction: float
    sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class Tried:
    """What ``try_methods`` wrote.

    Attributes:
        folder: where.
        labels: of the variants, in the order asked for.
        predictions: by variant, then in graph order.
    """

    folder: Path
    labels: tuple[str, ...]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the run folder holds of the calibration.

    Attributes:
        histograms: with the batches' maxima where they were kept.
        ties: groups of tensors that share a threshold.
        manifest: of calibration.cache; its ``tied`` are the followers, in the cache's order.
        tensorrt: version that calibration.cache is written for.
        batch: samples a batch.
    """

    histograms: Mapping[str, Histogram]
    ties: Sequence[tuple[str, ...]]
    manifest: manifest.Manifest
    tensorrt: str
    batch: int


@dataclass(frozen=True, slots=True)
class _Pass:
    """Part of collection.json."""

    batch: int


@dataclass(frozen=True, slots=True)
class _Choice:
    """Part of repair.json."""

    histograms: str


def parse(text: str) -> Variant:
    """Return the variant that ``NAME[:key=value[,key=value...]]`` stands for.

    >>> parse("entropy:levels=255,zero_bin=count")
    Variant(method='entropy', parameters={'levels': 255, 'zero_bin': 'count'})

    Raises:
        ConfigError: not of this form, or a key that is given twice.
    """
    name, colon, rest = text.partition(":")
    parameters: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ConfigError(
                f"method {text!r}: expected NAME or NAME:key=value,key=value, got {part!r} behind "
                "the colon; an example is percentile:percentile=99.9"
            )
        if key in parameters:
            raise ConfigError(f"method {text!r}: {key!r} is given twice; keep one")
        parameters[key] = _value(value)
    return Variant(name, parameters)


def try_methods(
    run: Path | str, methods: Sequence[str] = (), *, output: Path | None = None
) -> Tried:
    """Decide with each method; write its cache, its manifest, and the table of predictions.

    Args:
        run: folder of a run that is calibrated.
        methods: as ``parse`` takes them; every calibrator with its defaults if there is none.
        output: folder for ``<label>.cache``, ``<label>.json`` and methods.csv; methods/ in ``run``
            if None.

    Raises:
        ConfigError: a method.
        OutputError: ``run`` is no calibrated run, is in use, or its files are not as recorded; or
            the folder cannot be written.
        CalibrationError: the collection's files, or a tensor that a method finds no threshold for.
        CacheError: a cache or manifest of the run, or a threshold that no cache can hold.
    """
    variants = _chosen(methods)
    calibrators = {label: variant.calibrator() for label, variant in variants.items()}
    path = Path(run).resolve()
    if not (path / "run.json").is_file():
        raise OutputError(
            f"{run}: expected a run folder, it has no run.json; name the folder that "
            "'quantlab calibrate CONFIG' wrote"
        )
    with opened(path) as folder:
        recorded = _recorded(folder)
        decided, predictions = _decided(recorded, variants, calibrators)
        target = output or path / "methods"
        with files.translated(target):
            target.mkdir(parents=True, exist_ok=True)
        for label, thresholds in decided.items():
            _write(target / f"{label}.cache", recorded, variants[label], thresholds)
        files.write(target / TABLE, _table(predictions))
    return Tried(target, tuple(variants), predictions)


def _value(text: str) -> Any:
    """Return a parameter as JSON reads it, or as the text that it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _chosen(methods: Sequence[str]) -> dict[str, Variant]:
    """Return the variants by label."""
    found: dict[str, Variant] = {}
    for variant in map(parse, methods or CALIBRATORS):
        if variant.label in found:
            raise ConfigError(f"method {variant.label!r} is given twice; leave one out")
        found[variant.label] = variant
    return found


def _recorded(folder: RunFolder) -> _Recorded:
    """Read the run folder's calibration.

    Raises:
        OutputError: it is not finished, or a file is not the one that run.json records.
    """
    collected, decided = (_done(folder, step) for step in ("collect", "decide"))
    counted = _counted(folder, decided)
    for key, file in (("histograms", "histograms.npz"), ("collection", "collection.json")):
        if decided.made_from.get(key) != collected.files.get(file):
            raise OutputError(
                f"{folder.path}: {file} is newer than calibration.cache; finish it with "
                "'quantlab calibrate'"
            )
    histograms = histogram_file.load(folder.path / counted)
    if counted in collected.files and "batch_amax.npz" in collected.files:
        histograms = batch_amax.attach(histograms, folder.path / "batch_amax.npz")
    target = folder.path / "calibration.cache"
    try:
        ties, _ = _TIED.validate_python(decided.made_from.get("tied tensors"))
    except ValidationError as error:
        raise OutputError(
            f"{folder.path / 'run.json'}: step 'decide' records no tied tensors: it is another "
            "version's; run 'quantlab calibrate' again"
        ) from error
    return _Recorded(
        histograms=histograms,
        ties=ties,
        manifest=manifest.load(manifest.beside(target)),
        tensorrt=cache.read(target).header.version,
        batch=load(folder.path / "collection.json", _Pass).batch,
    )


def _counted(folder: RunFolder, decided: Done) -> str:
    """Return the file of the histograms: a repaired model has its own."""
    if decided.made_from.get("choice") is None:
        return "histograms.npz"
    _done(folder, "repair")
    return load(folder.path / "repair.json", _Choice).histograms


def _done(folder: RunFolder, step: str) -> Done:
    """Return a step whose files are as it wrote them."""
    done = folder.steps().get(step)
    reason = folder.stale(step, done.made_from if done else {})
    if done is None or reason is not None:
        raise OutputError(
            f"{folder.path}: step {step!r}: {reason}; no method can be tried on it: do it with "
            "'quantlab calibrate CONFIG'"
        )
    return done


def _decided(
    recorded: _Recorded, variants: Mapping[str, Variant], calibrators: Mapping[str, Calibrator]
) -> tuple[dict[str, dict[str, TensorThreshold]], tuple[Prediction, ...]]:
    """Return the thresholds and the predictions of each variant, by label."""

    def thresholds(label: str) -> dict[str, TensorThreshold]:
        method = variants[label].method
        return decide(recorded.histograms, calibrators[label], method=method, ties=recorded.ties)

    def predictions(histogram: Histogram) -> list[Prediction]:
        chosen = {label: found[histogram.tensor].threshold for label, found in decided.items()}
        return _predictions(histogram, chosen)

    with ThreadPoolExecutor() as pool:  # the calibrators' loops release the GIL
        decided = dict(zip(variants, pool.map(thresholds, variants), strict=True))
        by_tensor = list(pool.map(predictions, recorded.histograms.values()))
    return decided, tuple(row for rows in zip(*by_tensor, strict=True) for row in rows)


def _predictions(histogram: Histogram, thresholds: Mapping[str, float]) -> list[Prediction]:
    """Return what each variant's threshold does to a tensor."""
    decibels = sqnrs_db(histogram, list(thresholds.values()))
    return [
        Prediction(
            variant=label,
            tensor=histogram.tensor,
            amax=histogram.amax,
            threshold=threshold,
            clipped_fraction=clipped_fraction(histogram, threshold),
            sqnr_db=value,
        )
        for (label, threshold), value in zip(thresholds.items(), decibels, strict=True)
    ]


def _write(
    target: Path,
    recorded: _Recorded,
    variant: Variant,
    thresholds: Mapping[str, TensorThreshold],
) -> None:
    """Write a cache and its manifest."""
    found = follow(thresholds, recorded.manifest.tied)
    header = cache.header_for(recorded.tensorrt, algorithm(variant.method))
    cache.write(target, cache.from_thresholds(found, header))
    known = recorded.manifest.knobs
    kept = {key: known[key] for key in TUNED if known.get(key, "none") != "none"}
    made = replace(
        recorded.manifest,
        quantlab=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=variant.method,
        knobs=kept
        | knobs(
            variant.method,
            variant.parameters,
            nonfinite=str(known["nonfinite"]),
            batch=recorded.batch,
        ),
        tensors=tuple(found),
        cache_sha256=files.sha256(target),
    )
    made.save(manifest.beside(target))


def _table(predictions: Sequence[Prediction]) -> str:
    """Return methods.csv; an error of nothing is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Prediction)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in predictions)
    return text.getvalue()
