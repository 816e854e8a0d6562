"""Small networks with an INT8 draft of each, and the plain way to judge one of its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.datasets.base import Batch
from quantlab.engines.ort_session import run
from quantlab.graph.corrections import NONE, Corrections
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.sites import Edge, Placement
from quantlab.graph.tap import tap
from quantlab.histogram import from_array
from quantlab.records import TensorThreshold
from quantlab.simulate import Draft, session
from tests.models import Net, feeds

Array = NDArray[np.generic]
SAMPLES = 6


@dataclass(frozen=True)
class Case:
    """A draft with samples."""

    draft: Draft
    inputs: Mapping[str, Array]

    def batches(self, size: int = 3, labels: Array | None = None) -> list[Batch]:
        """Return the samples in batches."""
        return [
            Batch(
                {name: array[i : i + size] for name, array in self.inputs.items()},
                None if labels is None else labels[i : i + size],
                np.arange(i, i + size),
            )
            for i in range(0, SAMPLES, size)
        ]

    def outputs(self, edges: frozenset[Edge] | None = None) -> dict[str, Array]:
        """Return the outputs with only ``edges`` quantized, in FP32 if None, the plain way."""
        model = self.draft.model
        if edges:
            model = insert_qdq(
                model,
                only(self.draft.placement, edges),
                self.draft.thresholds,
                policy=self.draft.policy,
                corrections=self.draft.corrections,
            )
        names = [str(value.name) for value in model.graph.outputs]
        return run(session(model), names, self.inputs)

    def sqnr(self, edges: frozenset[Edge]) -> float:
        """Return the SQNR at the outputs with only ``edges`` quantized."""
        plain, int8 = self.outputs(), self.outputs(edges)
        errors = [
            np.square(int8[n] - plain[n].astype(np.float64)).sum() / np.square(plain[n]).sum()
            for n in plain
        ]
        return float(-10 * np.log10(np.mean(errors)))


def only(placement: Placement, edges: frozenset[Edge]) -> Placement:
    """Return what of a placement is about these edges."""
    kept = [
        replace(a, edges=tuple(e for e in a.edges if e in edges)) for a in placement.activations
    ]
    return replace(
        placement,
        activations=tuple(a for a in kept if a.edges),
        weights=tuple(w for w in placement.weights if w.edge in edges),
    )


def case(
    proto: onnx.ModelProto, *, policy: str = "tensorrt", corrections: Corrections = NONE
) -> Case:
    """Return the draft of a model with min-max thresholds of its own samples."""
    model = prepare(ir.from_proto(proto)).model
    inputs = feeds(proto, batch=SAMPLES)
    placement = place(model, policy)
    tapped = tap(model, placement.tensors)
    names = [str(value.name) for value in tapped.graph.outputs]
    seen = {**run(session(tapped), names, inputs), **inputs}
    histograms = {name: from_array(name, seen[name]) for name in placement.tensors}
    thresholds = {
        name: TensorThreshold(name, h.amax, h.amax, "minmax", h.minimum)
        for name, h in histograms.items()
    }
    return Case(Draft(model, policy, placement, histograms, thresholds, corrections), inputs)


def residual() -> onnx.ModelProto:
    """Return convolutions with a residual Add, a pool and a classifier."""
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 16, 8, 8)), (16, 16), bias=True, name="stem"))
    y = net.relu(net.conv(x, (16, 16), bias=True, name="first"))
    x = net.relu(net.add("Add", [net.conv(y, (16, 16), bias=True, name="second"), x], name="join"))
    x = net.conv(net.pool(x), (16, 16), name="third")
    return net.finish(net.gemm(net.add("Flatten", [x]), (256, 16), name="head"))


def shared() -> onnx.ModelProto:
    """Return a network in which two layers read one weight and three one tensor; two outputs."""
    net = Net(seed=2)
    x = net.relu(net.conv(net.input(shape=("N", 16, 6, 6)), (16, 16), name="stem"))
    y = net.relu(net.conv(x, (16, 16), name="left"))
    right = {"pads": [1] * 4}
    z = net.add("Conv", [y, "left.weight"], name="right", attributes=right)
    z = net.relu(net.add("Add", [z, x], name="join"))
    side = net.conv(x, (16, 32), kernel=1, name="side")
    return net.finish(net.conv(z, (16, 16), name="last"), side)


def transformer() -> onnx.ModelProto:
    """Return a normalized product with a bias, GELU and another, as transformers have them."""
    net = Net(seed=3)
    x = net.input(shape=("N", 5, 16))
    scale, shift = net.random("norm.scale", (16,)), net.random("norm.shift", (16,))
    y = net.add("LayerNormalization", [x, scale, shift], name="norm")
    y = net.add("Add", [net.matmul(y, (16, 32), name="up"), net.random("up.bias", (32,))])
    y = net.matmul(net.add("Relu", [y]), (32, 16), name="down")
    return net.finish(net.add("Add", [y, x], name="join"))


def perceptron() -> onnx.ModelProto:
    """Return two products with a Relu between them."""
    net = Net()
    x = net.relu(net.matmul(net.input(shape=("N", 32)), (32, 16), name="first"))
    return net.finish(net.matmul(x, (16, 32), name="second"))


NETWORKS = {"residual": residual, "shared": shared, "transformer": transformer}


def without(rows_: frozenset[Edge], placement: Placement) -> frozenset[Edge]:
    """Return all edges of a placement but some."""
    every = {e for a in placement.activations for e in a.edges}
    return frozenset(every | {w.edge for w in placement.weights}) - rows_
