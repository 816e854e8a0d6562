"""What every step needs: the config, the run folder, the engine, and someone to tell."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab import __version__, accuracy, configfile
from quantlab.config import Calibration, Config, Engines, Evaluation, Plug
from quantlab.datasets import DATASETS
from quantlab.datasets.base import Batch, Dataset, Samples
from quantlab.datasets.batching import batch_size, batches, take
from quantlab.datasets.fingerprint import fingerprint
from quantlab.engines import ENGINES, TENSORRT
from quantlab.engines.base import Engine
from quantlab.engines.host import host, versions
from quantlab.engines.trt.targets import parse
from quantlab.errors import ConfigError, DataError, OutputError
from quantlab.graph import model as graph
from quantlab.graph.pins import pin
from quantlab.graph.placement import POLICIES
from quantlab.metrics import METRICS
from quantlab.metrics.base import Metric
from quantlab.plugs import PLUGS
from quantlab.progress import Progress
from quantlab.records import Precision, TensorSpec
from quantlab.registry import make
from quantlab.runfolder import RunFolder, opened
from quantlab.search.target import sought

Inputs = tuple[TensorSpec, ...]
"""What a model is fed."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run in progress; its folder is locked for it.

    Attributes:
        config: with absolute paths.
        source: the config file.
        folder: the run folder.
        engine: the backend that the config names.
        progress: receives what is said.
    """

    config: Config
    source: Path
    folder: RunFolder
    engine: Engine
    progress: Progress

    def file(self, name: str) -> Path:
        """Return the path of a file in the run folder."""
        return self.folder.path / name

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What is built, each once."""
        return tuple(dict.fromkeys(self.config.engines.precisions))

    def require(self, step: str, made_from: Mapping[str, Any], command: str) -> None:
        """Check that ``step``, which ``command`` does, is done and up to date.

        Raises:
            OutputError: it is not; says why and what does it.
        """
        reason = self.folder.stale(step, made_from)
        if reason is not None:
            raise OutputError(
                f"{self.folder.path}: step {step!r} is not up to date: {reason}; do it with "
                f"'quantlab {command} {self.source}', or everything with "
                f"'quantlab run {self.source}'"
            )

    @property
    def output(self) -> str | None:
        """The output that is judged, where the config names one."""
        return self.config.evaluation.output if self.config.evaluation else None

    @property
    def policy(self) -> str:
        """The placement policy: the config's, or the backend's."""
        return self.config.quantization.policy or self.engine.policy

    def prepared(self) -> ir.Model:
        """Return the prepared model, with the nodes marked that the config gives a type."""
        return marked(graph.reload(self.file("prepared.onnx")), self.config, self.engine)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics that the config lists."""
        listed = self.config.evaluation.metrics if self.config.evaluation else ()
        plugs = [m if isinstance(m, Plug) else Plug(kind=m) for m in listed]
        base = self.source.parent
        return tuple(make("metric", METRICS, p.kind, p.parameters, base=base) for p in plugs)

    def dataset(self, plug: Plug) -> Dataset:
        """Return a dataset of the config."""
        return make("dataset", DATASETS, plug.kind, plug.parameters, base=self.source.parent)

    @contextmanager
    def samples(self, plug: Plug, inputs: Inputs) -> Iterator[Samples]:
        """Open a dataset of the config for a model with these inputs."""
        with self.dataset(plug).open(inputs) as samples:
            yield samples

    def batches(self, section: Calibration | Evaluation, inputs: Inputs) -> Iterator[Batch]:
        """Yield a section's samples in batches of its size."""
        yield from self._part(section, inputs, lambda count: (0, count))

    def fitting(self, inputs: Inputs) -> Iterator[Batch]:
        """Yield the calibration samples that thresholds and repairs are made of."""
        config = self.config.calibration
        yield from self._part(config, inputs, lambda count: (0, self._kept(inputs, count)))

    def held_back(self, inputs: Inputs) -> Iterator[Batch]:
        """Yield the calibration samples that choices are judged on, after those for fitting."""
        config = self.config.calibration
        yield from self._part(config, inputs, lambda count: (self._kept(inputs, count), count))

    def fitted(self, inputs: Inputs) -> int | None:
        """Return how many places the samples for fitting have; None for as the config says.

        Raises:
            DataError: there are too few to hold any back.
        """
        config = self.config.calibration
        if not self.config.holds_back:
            return config.samples
        with self.samples(config.dataset, inputs) as samples:
            return self._kept(inputs, take(samples, config.samples))

    def _kept(self, inputs: Inputs, count: int) -> int:
        """Return how many of ``count`` places are not held back: whole batches, where fixed."""
        if not self.config.holds_back:
            return count
        share = self.config.calibration.held_back
        # An open batch axis takes any number; a fixed one gives the same size whatever is asked.
        unit = batch_size(inputs, 1)
        held = max(round(count * share / unit), 1) * unit
        if held >= count:
            raise DataError(
                f"{count} calibration samples leave none for fitting when {held} are held back for "
                "judging; give more samples"
            )
        return count - held

    def _part(
        self,
        section: Calibration | Evaluation,
        inputs: Inputs,
        places: Callable[[int], tuple[int, int]],
    ) -> Iterator[Batch]:
        with self.samples(section.dataset, inputs) as samples:
            start, stop = places(take(samples, section.samples))
            size = batch_size(inputs, section.batch)
            part = samples.part(start, stop)
            yield from batches(part, inputs, size=size, count=stop - start)

    def recheck_samples(
        self, step: str, recorded: str, found: Iterable[Batch], *, labelled: bool = False
    ) -> None:
        """Make ``step`` run again if the samples ``found`` have another hash than ``recorded``."""
        if fingerprint(found, labelled=labelled).hexdigest() != recorded:
            self.progress.note(f"the samples of step {step!r} changed: doing it again")
            self.folder.forget(step)


@contextmanager
def started(
    source: Path, *, output: Path | None, progress: Progress, targets: str = ""
) -> Iterator[Job]:
    """Read the config, make its engine and take the run folder.

    Args:
        source: the config file.
        output: run folder in place of the config's.
        progress: receives what is said.
        targets: of TensorRT-RTX, e.g. "sm86,sm89", in place of the config's.

    Raises:
        ConfigError: the config.
        OutputError: the run folder.
    """
    config = configfile.load(source, PLUGS)
    if targets:
        config = _for_targets(config, targets, source)
    backend, base = config.engines.backend, source.resolve().parent
    engine = make("backend", ENGINES, backend, config.engines.parameters, base=base)
    check_quantization(config, engine, source)
    folder = output or config.output
    assert folder is not None  # noqa: S101  configfile.load sets it
    with opened(folder.resolve()) as run:
        job = Job(config, source.resolve(), run, engine, progress)
        accuracy.check(job.precisions, job.metrics())
        if config.search:
            sought(config.targets, job.metrics())
        run.note(
            {
                "quantlab": __version__,
                "config_file": str(source),
                "config_folder": str(source.resolve().parent),
                "config": config.model_dump(mode="json"),
                "versions": versions(),
                "host": host(),
            }
        )
        yield job


def marked(model: ir.Model, config: Config, engine: Engine) -> ir.Model:
    """Return a prepared model with the nodes marked that the config gives a type.

    Raises:
        ConfigError: a pattern names no node.
    """
    return pin(pin(model, engine.recipe.pins), config.quantization.layers, "layers")


def check_quantization(config: Config, engine: Engine, source: Path) -> None:
    """Check that a backend can do what the config wants in INT8.

    Raises:
        ConfigError: it cannot; says why and what to do.
    """
    wanted = config.quantization
    if wanted.policy is not None and POLICIES[wanted.policy].unsigned and _is_tensorrt(engine):
        raise ConfigError(
            f"{source}: quantization.policy: {wanted.policy} makes UINT8, which TensorRT refuses "
            "or misreads; leave it out, or choose 'tensorrt' or 'conservative'"
        )
    if engine.recipe.explicit:
        return
    if config.search or config.repair not in ("none", ()):
        raise ConfigError(
            f"{source}: repair, search: TensorRT's implicit INT8 takes scales alone, neither "
            "layers nor weights; set 'engines.quantization: explicit', or leave them out"
        )
    if config.calibration.tensors != "all":
        raise ConfigError(
            f"{source}: engines.quantization: the builder of TensorRT's implicit INT8 looks for a "
            "scale of every tensor; set 'calibration.tensors: all', or 'quantization: explicit'"
        )
    if wanted.layers or wanted.policy not in (None, engine.policy):
        raise ConfigError(
            f"{source}: quantization: TensorRT's implicit INT8 chooses the layers by itself; keep "
            "nodes out of it with 'engines.pins', or set 'engines.quantization: explicit'"
        )


def _is_tensorrt(engine: Engine) -> bool:
    return engine.name in TENSORRT


def _for_targets(config: Config, text: str, source: Path) -> Config:
    if config.engines.backend != "tensorrt-rtx":
        raise ConfigError(
            "--targets is for 'backend: tensorrt-rtx', which builds for other GPUs than this "
            f"machine's; {source} has 'backend: {config.engines.backend}'"
        )
    engines = config.engines.model_dump() | {"targets": parse(text)}
    return config.model_copy(update={"engines": Engines.model_validate(engines)})


def described(plug: Plug) -> Mapping[str, Any]:
    """Return a plug as JSON-able values."""
    return plug.model_dump(mode="json")
