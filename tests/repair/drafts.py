"""Drafts of INT8 models and a bench, from a model in memory and samples at random."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.calibrators.minmax import MinMax
from quantlab.decide import decide
from quantlab.engines.ort_session import run
from quantlab.graph.channel_sets import Ranges, axes
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
from quantlab.histogram import Histogram, from_array
from quantlab.records import Thresholds
from quantlab.repair.base import Bench
from quantlab.simulate import Arrays, Draft, Judge, session

BATCH = 16


def batches(samples: NDArray[np.float32], name: str = "x") -> Iterator[Arrays]:
    """Yield samples in batches."""
    for start in range(0, len(samples), BATCH):
        yield {name: samples[start : start + BATCH]}


def bench(samples: NDArray[np.float32], *, seconds: float = 60.0) -> Bench:
    """Return a bench that fits on these samples, with thresholds that clip nothing."""

    def collect(model: ir.Model, names: Sequence[str]) -> Mapping[str, Histogram]:
        inner = [name for name in names if name != "x"]
        made = run(session(tap(model, inner)), inner, {"x": samples}) if inner else {}
        return {name: from_array(name, {**made, "x": samples}[name]) for name in names}

    def chosen(model: ir.Model, histograms: Mapping[str, Histogram]) -> Thresholds:
        return decide(histograms, MinMax(), method="minmax", ties=place(model).ties)

    def channels(model: ir.Model) -> Ranges:
        found = axes(model)
        inner = [name for name in found if name != "x"]
        made = run(session(tap(model, inner)), inner, {"x": samples}) if inner else {}
        values = {name: np.abs({**made, "x": samples}[name]) for name in found}
        return {
            name: np.moveaxis(values[name], axis, 0)
            .reshape(values[name].shape[axis], -1)
            .max(axis=1)
            .astype(np.float64)
            for name, axis in found.items()
        }

    return Bench(lambda: batches(samples), collect, chosen, channels, seconds)


def draft(original: onnx.ModelProto, made: Bench, *, policy: str = "tensorrt") -> Draft:
    """Return the draft of a model whose one input is "x"."""
    model = prepare(ir.from_proto(original)).model
    placement = place(model, policy)
    histograms = made.collect(model, placement.tensors)
    return Draft(model, policy, placement, histograms, made.decide(model, histograms))


def error(one: Draft, samples: NDArray[np.float32]) -> float:
    """Return the relative error at the output."""
    judge = Judge.make(one.model, lambda: batches(samples))
    return judge.errors([(one.simulated(), one.thresholds)])[0]


def images(count: int, channels: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return images whose neighbouring pixels and channels are alike."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, channels, 8, 8)) / 4
    return (noise + rng.normal(size=(count, 1, 1, 1)) + 1).astype(np.float32)
