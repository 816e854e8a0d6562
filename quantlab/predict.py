"""One picture or array through an engine: the classes that it scores best, with their names.

What a run folder knows is used: the engine's backend and parameters, the names of the classes, and
how the dataset of the evaluation (or of the calibration) turns an image into the model's input.  An
engine file that stands alone tells none of that: then inputs are arrays, and classes are numbers.

Probabilities are the softmax of the scores, computed in float64; scores that are probabilities
already (none negative, each sample's sum within 0.001 of 1) stay as they are.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from quantlab.config import Config
from quantlab.datasets import DATASETS
from quantlab.datasets.base import Array, Dataset, Pictures
from quantlab.datasets.checks import check_finite, check_fit, convert
from quantlab.engines import ENGINES
from quantlab.engines.base import Engine, Runner, Signed
from quantlab.engines.trt import plan
from quantlab.errors import ConfigError, DataError, EngineError, OutputError, QuantlabError
from quantlab.files import sha256
from quantlab.metrics.arrays import class_scores
from quantlab.records import PRECISIONS, Build, Precision, TensorSpec
from quantlab.registry import make
from quantlab.runfolder import RunFolder
from quantlab.saved import load
from quantlab.steps.evaluate import Evaluated

SUM = 1e-3
"""How far from 1 the sum of probabilities may be: FP16 keeps three digits."""

ALONE = "no run folder is around it, so class names and preprocessing are not known"


@dataclass(frozen=True, slots=True)
class Source:
    """An engine, and what its run folder tells of inputs and classes.

    Attributes:
        engine: the backend.
        build: the engine's record.
        root: the folder that its paths are relative to.
        dataset: whose way of reading images is the model's; None if not known.
        names: by class index; None if not known.
        output: name of the output that scores classes; the first one if None.
        notes: what is not known, and why.
    """

    engine: Engine
    build: Build
    root: Path
    dataset: Dataset | None = None
    names: tuple[str, ...] | None = None
    output: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Guess:
    """A class with its score; ``name`` is None where names are not known."""

    index: int
    name: str | None
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """What came out.

    Attributes:
        engine: precision, backend and device in a sentence.
        samples: guesses of each sample, the best first.
        notes: what a reader must know.
    """

    engine: str
    samples: tuple[tuple[Guess, ...], ...]
    notes: tuple[str, ...]


def predict(
    target: Path, given: Path, *, precision: Precision | None = None, top: int = 5
) -> Predicted:
    """Run an image or array through an engine and return its best classes.

    Args:
        target: a run folder, or an engine file.
        given: an image, or a .npy array of one sample or of a batch.
        precision: which engine of a run folder; INT8 if not given.
        top: how many classes.

    Raises:
        EngineError: no such engine, one that was changed, or one that cannot be run here.
        DataError: the input cannot be read or does not fit, or the output does not score classes.
        ConfigError, OutputError: the run folder is none, or damaged.
    """
    source = find(target, precision)
    title = f"{source.build.precision}: {source.engine.available()}"
    with source.engine.open(source.build, source.root) as runner:
        spec = only_input(runner, source)
        scores = classify(runner, source, read(given, spec, source))
    names, notes = named(source, spec, scores.shape[1])
    chances = probabilities(scores)
    samples = tuple(
        tuple(
            Guess(int(i), names[i] if names else None, float(row[i]), float(chance[i]))
            for i in np.argsort(-row, kind="stable")[:top]
        )
        for row, chance in zip(scores, chances, strict=True)
    )
    return Predicted(title, samples, (*source.notes, *notes))


def find(path: Path, precision: Precision | None = None) -> Source:
    """Return the engine of a run folder, or the one that a file is.

    Raises:
        EngineError, ConfigError, OutputError: see ``predict``.
    """
    if path.is_dir():
        return _from_run(path, precision or "int8")
    if not path.is_file():
        raise EngineError(f"{path}: there is no such run folder or engine file; check the path")
    folder, own = path.resolve().parent, path.name.split(".")[0]
    if folder.name == "engines" and (folder.parent / "run.json").is_file() and own in PRECISIONS:
        if precision not in (None, own):
            raise ConfigError(f"{path} is the {own} engine, and {precision} was asked for")
        return _from_run(folder.parent, next(p for p in PRECISIONS if p == own))
    return _alone(path, precision)


def only_input(runner: Runner, source: Source) -> TensorSpec:
    """Return the engine's single input.

    Raises:
        DataError: it has another number of inputs.
    """
    specs = runner.inputs if isinstance(runner, Signed) else ()
    if len(specs) != 1:
        listed = ", ".join(map(str, specs)) or "none that it tells"
        raise DataError(
            f"{source.build.path}: a prediction feeds one input, this engine has {len(specs)} "
            f"({listed}); use Engine.open and Runner.run from Python"
        )
    return specs[0]


def read(path: Path, spec: TensorSpec, source: Source) -> Array:
    """Return an image or a .npy array as a batch for the input.

    Raises:
        DataError: it cannot be read, or does not fit.
    """
    if not path.is_file():
        raise DataError(f"cannot read {path}: there is no such file; check the path")
    if path.suffix.lower() == ".npy":
        return _array(path, spec)
    if not isinstance(source.dataset, Pictures):
        why = ALONE
        if source.dataset is not None:
            why = f"dataset {type(source.dataset).__name__} of this run holds arrays, not images"
        raise DataError(
            f"{path}: how an image becomes {spec} is not known: {why}; give a .npy array as the "
            "model takes it"
        )
    return np.asarray(source.dataset.image(path, spec))[np.newaxis]


def classify(runner: Runner, source: Source, batch: Array) -> NDArray[np.float64]:
    """Return the scores (samples, classes) of a batch; a fixed batch axis is filled up.

    Raises:
        EngineError: the engine failed, or has no output of the name that the config judges.
        DataError: the output does not score classes.
    """
    spec = only_input(runner, source)
    fixed = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else len(batch)
    found = []
    for start in range(0, len(batch), fixed):
        part = batch[start : start + fixed]
        whole = part[np.arange(fixed) % len(part)]
        outputs = runner.run({spec.name: whole})
        name = source.output or next(iter(outputs))
        if name not in outputs:
            raise EngineError(f"the engine has no output {name!r}; it has {', '.join(outputs)}")
        found.append(class_scores(outputs[name])[: len(part)].astype(np.float64))
    return np.concatenate(found)


def named(
    source: Source, spec: TensorSpec, classes: int
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the classes' names, and why there are none if so.

    They are those of the evaluation, else those that a dataset of images knows by itself.
    """
    names = source.names
    if names is None and isinstance(source.dataset, Pictures):
        try:
            with source.dataset.open([spec]) as samples:
                names = samples.class_names
        except DataError as error:
            return None, (f"class names are not known: {error}",)
    if names is None:
        return None, ("class names are not known: classes are printed by number",)
    if len(names) != classes:
        text = f"there are {len(names)} class names for {classes} classes: printing numbers"
        return None, (text,)
    return names, ()


def probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of scores (samples, classes).

    >>> probabilities(np.array([[3.0, 3.0]])).tolist()
    [[0.5, 0.5]]
    >>> probabilities(np.array([[0.25, 0.75]])).tolist()
    [[0.25, 0.75]]
    """
    if scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() <= SUM:
        return scores
    rising = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(rising / rising.sum(axis=1, keepdims=True))


def _array(path: Path, spec: TensorSpec) -> Array:
    try:
        values: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path} as .npy: {error}; write it with numpy.save") from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{path}: expected one array; write it with numpy.save")
    batch = values[np.newaxis] if values.ndim == len(spec.shape) - 1 else values
    if batch.ndim == 0 or batch.size == 0:
        raise DataError(f"{path}: expected {spec}, the array's shape is {list(values.shape)}")
    check_fit(
        spec,
        batch.dtype,
        batch.shape[1:],
        str(path),
        hint="the first axis counts samples, or is left out for one",
    )
    check_finite(batch, spec.name, str(path))
    return convert(batch, spec)


def _from_run(folder: Path, precision: Precision) -> Source:
    facts = RunFolder(folder).facts()
    config, base = _config(folder, facts), _base(facts)
    built = [p for p in PRECISIONS if (folder / "engines" / f"{p}.json").is_file()]
    if precision not in built:
        raise OutputError(
            f"{folder} holds no {precision} engine, but {', '.join(built) or 'none at all'}; "
            "choose with --precision, or build it with 'quantlab build'"
        )
    engines = config.engines
    notes: list[str] = []
    dataset = _tried(lambda: _dataset(config, base), notes)
    return Source(
        engine=make("backend", ENGINES, engines.backend, engines.parameters, base=base),
        build=load(folder / "engines" / f"{precision}.json", Build),
        root=folder,
        dataset=dataset,
        names=_names(folder / "evaluation.json"),
        output=config.evaluation.output if config.evaluation else None,
        notes=tuple(notes),
    )


def _config(folder: Path, facts: dict[str, Any]) -> Config:
    if "config" not in facts:
        raise OutputError(f"{folder} is no run folder: it has no run.json; check the path")
    try:
        return Config.model_validate_json(json.dumps(facts["config"]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, ("config", *first["loc"])))
        raise OutputError(
            f"{folder / 'run.json'}: {where}: {first['msg']}; run it again"
        ) from error


def _base(facts: dict[str, Any]) -> Path:
    """Return the folder that paths in the config start at."""
    return Path(facts.get("config_folder") or Path(str(facts.get("config_file", ""))).parent)


def _dataset(config: Config, base: Path) -> Dataset:
    plug = (config.evaluation or config.calibration).dataset
    return make("dataset", DATASETS, plug.kind, plug.parameters, base=base)


def _names(record: Path) -> tuple[str, ...] | None:
    """Return the class names that the evaluation knew, if there was one."""
    return load(record, Evaluated).class_names if record.is_file() else None


def _tried(make_it: Callable[[], Dataset], notes: list[str]) -> Dataset | None:
    """Return the dataset; what is against it is a note, since arrays can be fed without it."""
    try:
        return make_it()
    except QuantlabError as error:
        notes.append(f"the dataset of this run cannot be used: {error}")
        return None


def _alone(path: Path, precision: Precision | None) -> Source:
    """Return an engine file without run folder."""
    stem = path.name.split(".")[0]
    named = next((p for p in PRECISIONS if p == stem), None)
    files = [path]
    match path.suffix:
        case ".xml":
            backend = "openvino"
            files.append(path.with_suffix(".bin"))
        case ".onnx":
            backend = "onnxruntime"
        case ".plan":
            manifest = plan.read(path)
            backend, named = manifest.package, manifest.precision
            files.append(plan.beside(path))
        case other:
            raise EngineError(
                f"{path}: expected an engine file .plan, .xml or .onnx, or a run folder; got "
                f"{other or 'a name without ending'}"
            )
    for file in files:
        if not file.is_file():
            raise EngineError(f"{path}: {file.name} must lie beside it, and is missing")
    build = Build(
        precision=precision or named or "fp32",
        backend=backend,
        device="",
        path=path.name,
        files={file.name: sha256(file) for file in files},
        size_bytes=sum(file.stat().st_size for file in files),
        build_seconds=0.0,
    )
    return Source(ENGINES[backend](), build, path.parent, notes=(f"{path}: {ALONE}",))
