"""What diagnosis costs: a network of 60 layers, 64 samples, against evaluating it.

A full evaluation is FP32 and INT8 in ONNX Runtime over EVALUATED samples, measured on MEASURED of
them; FP16, which most runs evaluate too, is left out.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.figures import Figure
from quantlab.analyze import analyze
from quantlab.datasets.base import Batch
from quantlab.engines.ort_session import run, session
from quantlab.graph import model as graph
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
from quantlab.histogram import from_array
from quantlab.records import TensorThreshold
from quantlab.simulate import Draft
from tests.models import Net

BLOCKS = 29
"""Of two convolutions with a residual Add; with the stem and the classifier 60 layers."""

SAMPLES = 64
BATCH = 32
EVALUATED = 10_000
MEASURED = 512
LIMIT = 3.0
SIZE = 16
CHANNELS = 32


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the figure.

    Args:
        folder: empty, to work in.
    """
    draft, images = _draft(np.random.default_rng(0))
    batches = [
        Batch({"x": images[i : i + BATCH]}, None, np.arange(i, i + BATCH))
        for i in range(0, SAMPLES, BATCH)
    ]
    found = analyze(draft, batches)
    evaluation = sum(_seconds(model, folder, images[:BATCH]) for model in _engines(draft))
    ratio = found.seconds / evaluation
    yield Figure(
        name="analysis of 60 layers on 64 samples / a full evaluation",
        value=ratio,
        unit="x",
        low=ratio,
        high=ratio,
        how=f"{len(found.rows)} rows in {found.seconds:.1f} s; FP32 and INT8 over {EVALUATED} "
        f"samples in ONNX Runtime {evaluation:.1f} s, from {MEASURED}",
        at_most=LIMIT,
    )


def _draft(rng: np.random.Generator) -> tuple[Draft, np.ndarray]:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 3, SIZE, SIZE)), (3, CHANNELS), name="stem"))
    both = (CHANNELS, CHANNELS)
    for block in range(BLOCKS):
        y = net.relu(net.conv(x, both, name=f"{block}.first"))
        x = net.relu(net.add("Add", [net.conv(y, both, name=f"{block}.second"), x]))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    model = prepare(ir.from_proto(net.finish(net.gemm(x, (CHANNELS, 10), name="head")))).model
    placement = place(model)
    images = rng.standard_normal((SAMPLES, 3, SIZE, SIZE)).astype(np.float32)
    opened = session(ir.to_proto(tap(model, placement.tensors)).SerializeToString())
    names = [name for name in placement.tensors if name != "x"]
    seen = {"x": images, **run(opened, names, {"x": images})}
    histograms = {name: from_array(name, seen[name]) for name in placement.tensors}
    thresholds = {
        name: TensorThreshold(name, h.amax, h.amax, "minmax", h.minimum)
        for name, h in histograms.items()
    }
    return Draft(model, "tensorrt", placement, histograms, thresholds), images


def _engines(draft: Draft) -> tuple[ir.Model, ir.Model]:
    """Return what is evaluated."""
    return draft.model, draft.int8()


def _seconds(model: ir.Model, folder: Path, images: np.ndarray) -> float:
    """Return how long EVALUATED samples take."""
    path = folder / "evaluated.onnx"
    graph.save(model, path)
    opened, names = session(path), [str(value.name) for value in model.graph.outputs]
    run(opened, names, {"x": images})
    started = time.perf_counter()
    for _ in range(MEASURED // BATCH):
        run(opened, names, {"x": images})
    return (time.perf_counter() - started) * EVALUATED / MEASURED
