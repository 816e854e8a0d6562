"""Networks with channels that INT8 loses, and how much INT8 loses of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from quantlab.collect.channels import channel_amax
from quantlab.graph.channel_sets import axes
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import save
from quantlab.graph.placement import place
from tests.graph.running import relative_error, run, thresholds
from tests.models import Net, feeds
from tests.networks import gelu, silu

Array = NDArray[np.generic]
Factors = NDArray[np.float64]

CHANNELS = 16
UNEQUAL = 2.0 ** np.linspace(-5, 5, CHANNELS).round()
"""Factors of channels that span 10 bits."""

OUTLYING = np.where(np.arange(CHANNELS) % 8 == 3, 2.0**7, 1.0)
"""Factors of two channels that outgrow the rest."""

HELD, COLLAPSED = 0.08, 0.25
"""Relative errors of INT8 that works, and of INT8 that lost the signal."""


def scaled(model: onnx.ModelProto, name: str, axis: int, factors: Factors) -> None:
    """Multiply an initializer of ``model`` along an axis."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor)
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    made = (values * factors.reshape(shape)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(made, name))


def block(factors: Factors) -> onnx.ModelProto:
    """Depthwise block with a residual Add; its expanded channels and its stream are scaled."""
    net = Net()
    start = net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem")
    x = net.relu(net.conv(start, (16, 16), kernel=1, bias=True, name="up"))
    x = net.relu(net.conv(x, (16, 16), groups=16, bias=True, name="deep"))
    x = net.conv(x, (16, 16), kernel=1, bias=True, name="down")
    x = net.add("Add", [x, start])
    x = net.add("Flatten", [net.add("GlobalAveragePool", [net.relu(x)])])
    model = net.finish(net.gemm(x, (16, 16), name="last"))
    stream, deep = factors, factors[::-1]
    for name in ("stem.weight", "stem.bias", "down.weight", "down.bias"):
        scaled(model, name, 0, stream)
    for name in ("up.weight", "last.weight"):
        scaled(model, name, 1, 1 / stream)
    for name in ("deep.weight", "deep.bias"):
        scaled(model, name, 0, deep)
    scaled(model, "down.weight", 1, 1 / deep)
    return model


def normalized(factors: Factors) -> onnx.ModelProto:
    """Three products behind one LayerNormalization whose channels are scaled."""
    net = Net()
    scale = net.weight("norm.scale", np.ones(16, np.float32))
    inputs = [net.input(shape=("N", 16, 16)), scale, net.random("norm.bias", (16,))]
    x = net.add("LayerNormalization", inputs, name="norm")
    made = [net.matmul(x, (16, 16), name=name) for name in ("q", "k", "v")]
    model = net.finish(net.add("Add", [net.add("Add", made[:2]), made[2]]))
    for name in ("norm.scale", "norm.bias"):
        scaled(model, name, 0, factors)
    for name in ("q", "k", "v"):
        scaled(model, f"{name}.weight", 0, 1 / factors)
    return model


def activated(factors: Factors) -> onnx.ModelProto:
    """A product behind a GELU whose channels are scaled."""
    net = Net()
    x = net.add("Add", [net.matmul(net.input(shape=("N", 16, 16)), (16, 16), name="up"), "b"])
    net.random("b", (16,))
    model = net.finish(net.matmul(gelu(net, x), (16, 16), name="down"))
    scaled(model, "up.weight", 1, factors)
    scaled(model, "down.weight", 0, 1 / factors)
    return model


def gated(factors: Factors) -> onnx.ModelProto:
    """A depthwise convolution behind a SiLU whose channels are scaled."""
    net = Net()
    x = net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem")
    x = net.conv(silu(net, x), (16, 16), groups=16, bias=True, name="deep")
    model = net.finish(net.conv(net.relu(x), (16, 16), kernel=1, name="last"))
    scaled(model, "stem.weight", 0, factors)
    scaled(model, "deep.weight", 0, 1 / factors)
    return model


def bounded(factors: Factors, bound: float) -> onnx.ModelProto:
    """A depthwise convolution behind Clip(0, bound)."""
    net = Net()
    x = net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem")
    low = net.weight("low", np.array(0, np.float32))
    high = net.weight("high", np.array(bound, np.float32))
    x = net.add("Clip", [x, low, high], name="clip")
    x = net.conv(x, (16, 16), groups=16, name="deep")
    model = net.finish(net.conv(net.relu(x), (16, 16), kernel=1, name="last"))
    for name in ("stem.weight", "stem.bias"):
        scaled(model, name, 0, factors)
    scaled(model, "deep.weight", 0, 1 / factors)
    return model


def given(model: onnx.ModelProto) -> dict[str, Array]:
    """Return one batch of inputs."""
    return feeds(model, batch=16)


def ranges(
    model: ir.Model, batch: Mapping[str, Array], folder: Path
) -> dict[str, NDArray[np.float64]]:
    """Return the channel ranges of a prepared model for one batch."""
    path = folder / "ranges.onnx"
    save(model, path)
    return channel_amax(path, axes(model), [batch])


def output(model: ir.Model, batch: Mapping[str, Array], folder: Path) -> NDArray[np.float32]:
    """Return the first output of a model."""
    path = folder / "run.onnx"
    save(model, path)
    return np.asarray(next(iter(run(path, batch).values())), np.float32)


def int8_error(model: ir.Model, batch: Mapping[str, Array], folder: Path) -> float:
    """Return the relative error of INT8 with min-max thresholds, on the same batch."""
    placement = place(model)
    seen = thresholds(model, placement.tensors, batch, folder)
    quantized = insert_qdq(model, placement, seen)
    return relative_error(output(model, batch, folder), output(quantized, batch, folder))
