"""A shipped network made ready for collecting, by the functions that a run uses."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantlab import configfile
from quantlab.calibrators import CALIBRATORS
from quantlab.calibrators.base import Calibrator
from quantlab.collect.collector import Collection, collect
from quantlab.collect.cut import Request, cut
from quantlab.collect.executor import Local
from quantlab.config import Config
from quantlab.datasets import DATASETS
from quantlab.datasets.base import Batch, Dataset, Sample, Samples
from quantlab.datasets.batching import batches, take
from quantlab.datasets.columns import Rows
from quantlab.decide import decide
from quantlab.graph import model as graph
from quantlab.graph.placement import Placement, place
from quantlab.graph.prepare import prepare
from quantlab.histogram import Histogram
from quantlab.plugs import PLUGS
from quantlab.records import TensorSpec, TensorThreshold
from quantlab.registry import make

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "fashion_mnist"
RESNET = EXAMPLES / "resnet.yaml"
MOBILENET = EXAMPLES / "mobilenet.yaml"


@dataclass(frozen=True, slots=True)
class Material:
    """What calibrating a network takes.

    Attributes:
        source: the config file.
        config: what it says.
        prepared: the model that is calibrated.
        placement: where Q/DQ go; its tensors are collected.
        inputs: of the model.
    """

    source: Path
    config: Config
    prepared: Path
    placement: Placement
    inputs: tuple[TensorSpec, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors to collect."""
        return tuple(dict.fromkeys(self.placement.tensors))

    @property
    def method(self) -> Calibrator:
        """The calibrator that the config names."""
        return self.calibrator(self.config.calibration.method)

    def calibrator(self, name: str) -> Calibrator:
        """Return a calibrator with its default parameters."""
        return make("method", CALIBRATORS, name, {})

    def decide(self, histograms: Mapping[str, Histogram]) -> dict[str, TensorThreshold]:
        """Return the thresholds that a run would decide."""
        name = self.config.calibration.method
        return decide(histograms, self.method, method=name, ties=self.placement.ties)

    def dataset(self) -> Dataset:
        """Return the dataset that the config names."""
        plug = self.config.calibration.dataset
        return make("dataset", DATASETS, plug.kind, plug.parameters, base=self.source.parent)

    def stored(self, limit: int | None = None) -> "Stored":
        """Return the calibration samples, all 512 or the first ``limit``, read into memory."""
        with self.dataset().open(self.inputs) as samples:
            count = take(samples, limit or self.config.calibration.samples)
            return Stored(tuple(samples.part(0, count)))

    def collect(self, dataset: Dataset, *, size: int, limit: int | None = None) -> Collection:
        """Collect as a run does."""
        executor = Local()
        request = Request(
            model=self.prepared,
            inputs=self.inputs,
            tensors=self.tensors,
            dataset=dataset,
            samples=limit or self.config.calibration.samples,
            batch=size,
        )
        return collect(cut(request, executor), executor)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A dataset in memory."""

    samples: tuple[Sample, ...]

    def batches(self, inputs: Sequence[TensorSpec], size: int) -> list[Batch]:
        """Return every batch."""
        return list(batches(self.samples, inputs, size=size))

    @contextmanager
    def open(self, inputs: Sequence[TensorSpec]) -> Iterator[Samples]:  # noqa: ARG002  a dataset's signature
        """Return what is there."""
        yield Rows(len(self.samples), lambda start, stop: iter(self.samples[start:stop]))


def made(source: Path, folder: Path) -> Material:
    """Prepare the config's model into ``folder``, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    config = configfile.load(source, PLUGS)
    prepared = folder / "prepared.onnx"
    model = prepare(graph.load(config.model)).model
    placement = place(model, "tensorrt")
    graph.save(model, prepared)
    return Material(source, config, prepared, placement, graph.inputs(model))
