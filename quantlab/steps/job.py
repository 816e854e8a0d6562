"""What every step needs: the config, the run folder, the engine, and someone to tell."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from quantlab import __version__, configfile
from quantlab.config import Config, Plug
from quantlab.datasets import DATASETS
from quantlab.datasets.base import Dataset, Samples
from quantlab.datasets.batching import batch_size, batches, take
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.engines import ENGINES
from quantlab.engines.base import Engine
from quantlab.engines.host import host, versions
from quantlab.errors import OutputError
from quantlab.graph import model as graph
from quantlab.plugs import PLUGS
from quantlab.progress import Progress
from quantlab.records import Precision, TensorSpec
from quantlab.registry import make
from quantlab.runfolder import RunFolder, opened


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
        """What is built."""
        return self.config.engines.precisions

    def need(self, name: str, step: str) -> Path:
        """Return the path of ``name``, which ``step`` writes.

        Raises:
            OutputError: it is not there; says which command makes it.
        """
        path = self.file(name)
        if not path.is_file():
            raise OutputError(
                f"{path} is missing; 'quantlab {step} {self.source}' makes it, "
                f"'quantlab run {self.source}' does everything"
            )
        return path

    def prepared(self) -> ir.Model:
        """Return the prepared model."""
        return graph.load(self.need("prepared.onnx", "calibrate"))

    def dataset(self, plug: Plug) -> Dataset:
        """Return a dataset of the config."""
        return make("dataset", DATASETS, plug.kind, plug.parameters, base=self.source.parent)

    @contextmanager
    def samples(self, plug: Plug, inputs: tuple[TensorSpec, ...]) -> Iterator[Samples]:
        """Open a dataset of the config for a model with these inputs."""
        with self.dataset(plug).open(inputs) as samples:
            yield samples

    def fingerprint(
        self, plug: Plug, inputs: tuple[TensorSpec, ...], *, limit: int | None, batch: int
    ) -> str:
        """Return the hash of the samples that a step would use, without running anything."""
        found = Fingerprint()
        with self.samples(plug, inputs) as samples:
            limit = take(samples, limit)
            size = batch_size(inputs, batch)
            for part in batches(samples, inputs, size=size, limit=limit):
                found.add(part)
        return found.hexdigest()


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
        run.note(
            {
                "quantlab": __version__,
                "config_file": str(source),
                "config": config.model_dump(mode="json"),
                "versions": versions(),
                "host": host(),
            }
        )
        yield Job(config, source.resolve(), run, engine, progress)


def described(plug: Plug) -> Mapping[str, Any]:
    """Return a plug as JSON-able values."""
    return plug.model_dump(mode="json")
