"""A shipped network made ready for collecting, by the functions that a run uses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantlab import configfile
from quantlab.calibrators import CALIBRATORS
from quantlab.calibrators.base import Calibrator
from quantlab.config import Config
from quantlab.datasets import DATASETS
from quantlab.datasets.base import Batch
from quantlab.datasets.batching import batches
from quantlab.decide import decide
from quantlab.graph import model as graph
from quantlab.graph.placement import Placement, place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
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
        tapped: the same with the collected tensors as outputs.
        placement: where Q/DQ go; its tensors are collected.
        inputs: of the model.
    """

    source: Path
    config: Config
    prepared: Path
    tapped: Path
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

    @contextmanager
    def batches(self, size: int, *, limit: int | None = None) -> Iterator[Iterator[Batch]]:
        """Open the calibration samples: all 512, or the first ``limit``."""
        plug = self.config.calibration.dataset
        base = self.source.parent
        dataset = make("dataset", DATASETS, plug.kind, plug.parameters, base=base)
        count = limit or self.config.calibration.samples
        with dataset.open(self.inputs) as samples:
            yield batches(samples, self.inputs, size=size, limit=count)


def made(source: Path, folder: Path) -> Material:
    """Prepare the config's model into ``folder``, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    config = configfile.load(source, PLUGS)
    prepared, tapped = folder / "prepared.onnx", folder / "tapped.onnx"
    model = prepare(graph.load(config.model)).model
    placement = place(model, "tensorrt")
    graph.save(model, prepared)
    graph.save(tap(model, tuple(dict.fromkeys(placement.tensors))), tapped)
    return Material(source, config, prepared, tapped, placement, graph.inputs(model))
