"""What every step needs: the config, the run folder, the engine, and someone to tell."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab import __version__, accuracy, configfile
from quantlab.config import Calibration, Config, Evaluation, Plug
from quantlab.datasets import DATASETS
from quantlab.datasets.base import Dataset, Samples
from quantlab.datasets.batching import batch_size, batches, take
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.engines import ENGINES
from quantlab.engines.base import Engine
from quantlab.engines.host import host, versions
from quantlab.errors import OutputError
from quantlab.graph import model as graph
from quantlab.metrics import METRICS
from quantlab.metrics.base import Metric
from quantlab.plugs import PLUGS
from quantlab.progress import Progress
from quantlab.records import Precision, TensorSpec
from quantlab.registry import make
from quantlab.runfolder import RunFolder, opened

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

    def prepared(self) -> ir.Model:
        """Return the prepared model."""
        return graph.reload(self.file("prepared.onnx"))

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

    def recheck_samples(
        self, step: str, recorded: str, section: Calibration | Evaluation, inputs: Inputs
    ) -> None:
        """Make ``step`` run again if the section's samples have another hash than ``recorded``."""
        found = Fingerprint()
        with self.samples(section.dataset, inputs) as samples:
            count = take(samples, section.samples)
            size = batch_size(inputs, section.batch)
            for batch in batches(samples.part(0, count), inputs, size=size, count=count):
                found.add(batch)
        if found.hexdigest() != recorded:
            self.progress.note(f"the samples of step {step!r} changed: doing it again")
            self.folder.forget(step)


@contextmanager
def started(source: Path, *, output: Path | None, progress: Progress) -> Iterator[Job]:
    """Read the config, make its engine and take the run folder.

    Raises:
        ConfigError: the config.
        EngineUnavailable: the backend cannot be used here.
        OutputError: the run folder.
    """
    config = configfile.load(source, PLUGS)
    engine = make("backend", ENGINES, config.engines.backend, config.engines.parameters)
    engine.available()
    folder = output or config.output
    assert folder is not None  # noqa: S101  configfile.load sets it
    with opened(folder.resolve()) as run:
        job = Job(config, source.resolve(), run, engine, progress)
        accuracy.check(job.precisions, job.metrics())
        run.note(
            {
                "quantlab": __version__,
                "config_file": str(source),
                "config": config.model_dump(mode="json"),
                "versions": versions(),
                "host": host(),
            }
        )
        yield job


def described(plug: Plug) -> Mapping[str, Any]:
    """Return a plug as JSON-able values."""
    return plug.model_dump(mode="json")
