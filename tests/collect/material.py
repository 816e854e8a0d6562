"""Networks, samples and the plain definition of a collection, for the tests of the collector.

Weights and samples are small multiples of 1/4, so that float32 holds every sum without rounding:
what a network computes does not depend on kernels, fusion, or how many samples run at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from quantlab.collect.cut import Request, cut
from quantlab.collect.executor import Local
from quantlab.collect.lane import HostLane
from quantlab.collect.plan import probe
from quantlab.collect.work import Part, Unit, Work
from quantlab.datasets.base import Array, Batch, Dataset, Sample, Samples
from quantlab.datasets.columns import Rows
from quantlab.engines.ort_session import session
from quantlab.graph import model as graph
from quantlab.graph.tap import tapped
from quantlab.histogram import Histogram, from_array, merge
from quantlab.records import TensorSpec
from tests.models import Net, write

TENSORS = ("x", "stem_out", "relu1_out", "add3_out", "flatten4_out", "head_out")
"""Of ``network``, in its order, the input first."""


class Exact(Net):
    """A network whose random weights are small multiples of 1/4."""

    def random(self, name: str, shape: Sequence[int], *, fan: int = 1) -> str:  # noqa: ARG002
        return self.weight(name, (self.rng.integers(-3, 4, shape) / 4).astype(np.float32))


def network(folder: Path) -> Path:
    """Write two convolutions with a skip connection and a classifier; return its file."""
    net = Exact()
    x = net.relu(net.conv(net.input(shape=("N", 2, 6, 6)), (2, 4), bias=True, name="stem"))
    x = net.add("Flatten", [net.add("Add", [net.conv(x, (4, 4), name="body"), x])])
    return write(net.finish(net.gemm(x, (144, 5), name="head")), folder / "model.onnx")


def images(count: int, *, seed: int = 0, shape: Sequence[int] = (2, 6, 6)) -> Array:
    """Return (count, *shape) float32, each sample larger than the one before."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-8, 9, (count, *shape)) / 4
    growing = np.arange(1, count + 1).reshape(count, *[1] * len(shape))
    return (steps * growing).astype(np.float32)


@dataclass(frozen=True)
class Given:
    """A dataset of samples that a test made; those at ``missing`` places are left out."""

    samples: Sequence[Mapping[str, Array]]
    missing: frozenset[int] = frozenset()
    read: list[int] = field(default_factory=list)
    """Places in the order in which they were read."""

    @contextmanager
    def open(self, inputs: Sequence[TensorSpec]) -> Iterator[Samples]:  # noqa: ARG002
        skipped = tuple(f"[{i}]: missing" for i in sorted(self.missing))
        yield Rows(len(self.samples), self._part, skipped=skipped)

    def _part(self, start: int, stop: int) -> Iterator[Sample]:
        for i in range(start, stop):
            if i not in self.missing:
                self.read.append(i)
                yield Sample(i, self.samples[i], None, f"[{i}]")


def given(x: Array, missing: Iterable[int] = ()) -> Given:
    """Return the rows of ``x`` (samples, ...) as samples for the input "x"."""
    return Given([{"x": row} for row in x], frozenset(missing))


def work_for(
    model: Path, dataset: Dataset, tensors: Sequence[str] = TENSORS, **changes: Any
) -> Work:
    """Return the work on one thread, in one pass, with ``changes`` of its attributes."""
    inputs = graph.inputs(graph.reload(model))
    request = Request(model=model, inputs=inputs, tensors=tuple(tensors), dataset=dataset)
    return replace(cut(request, Local(threads=1)), **changes)


def parts(work: Work, units: Sequence[Unit] | None = None) -> list[Part]:
    """Return the parts of all units, or of these."""
    return list(Local().parts(work, work.units if units is None else units, lambda _: None))


def lane_for(
    model: Path, tensors: Sequence[str], sample: Mapping[str, Array], size: int
) -> HostLane:
    """Return a lane for slices of ``size`` samples, whose shapes are those of ``sample``."""
    arrays = {name: np.asarray(array)[None] for name, array in sample.items()}
    one = Batch(arrays, None, np.zeros(1, np.int64))
    shapes = probe(model, tensors, one, together=True, memory_too=False).shapes
    with tapped(model, tensors) as file:
        return HostLane(session(file, threads=1, tapped=True), tensors, shapes, size)


def activations(
    model: Path, tensors: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Return what ``tensors`` are when ONNX Runtime alone runs the tapped model."""
    with tapped(model, tensors) as file:
        opened = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        inner = [name for name in tensors if name not in feeds]
        values = opened.run(inner, dict(feeds)) if inner else []
    found = {**dict(zip(inner, values, strict=True)), **feeds}
    return {name: found[name] for name in tensors}


def definition(
    model: Path, tensors: Sequence[str], x: Array, size: int = 1
) -> dict[str, Histogram]:
    """Return the histograms of the tensors, by definition, for slices of ``size`` samples."""
    found: dict[str, list[Histogram]] = {name: [] for name in tensors}
    for start in range(0, len(x), size):
        for name, values in activations(model, tensors, {"x": x[start : start + size]}).items():
            found[name].append(from_array(name, values, start))
    return {name: merge(each) for name, each in found.items()}


def maxima(model: Path, tensors: Sequence[str], x: Array, batch: int) -> Array:
    """Return (batches, tensors): the largest magnitude of each batch, by definition."""
    values = activations(model, tensors, {"x": x})
    edges = [*range(0, len(x), batch), len(x)]
    rows = [[np.abs(values[t][a:b]).max() for t in tensors] for a, b in pairwise(edges)]
    return np.array(rows, np.float64)
