"""ResNet-50 with random weights, for measuring speed: 25.6 million parameters, 4.1 GMAC an image.

Source: He et al., "Deep Residual Learning for Image Recognition", table 1; the stride stands in the
3x3 convolutions, as everyone builds it today.  Batch normalization is left out, as after folding.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels of a stage's 3x3 convolutions, and its blocks."""

EXPANSION = 4
CLASSES = 1000
IMAGE = (3, 224, 224)
OPSET = 17
IR_VERSION = 10

RESIDUAL_SCALE = 0.3
"""Of each block's last convolution: the sum of 16 branches stays of the order of 1."""


class _Builder:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: NDArray[np.floating]) -> str:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def conv(
        self, x: str, shape: tuple[int, int, int], *, stride: int = 1, scale: float = 1.0
    ) -> str:
        """Append a convolution; shape is (channels out, channels in, width of the kernel)."""
        out, into, kernel = shape
        fan = into * kernel * kernel
        number = len(self.nodes)
        values = self.rng.standard_normal((out, into, kernel, kernel)) * scale * np.sqrt(2 / fan)
        weight = self.weight(f"w{number}", values)
        bias = self.weight(f"b{number}", self.rng.standard_normal(out) * 0.05)
        pads, strides = [kernel // 2] * 4, [stride, stride]
        return self.node("Conv", [x, weight, bias], pads=pads, strides=strides)

    def block(self, x: str, into: int, width: int, stride: int) -> str:
        out = EXPANSION * width
        y = self.node("Relu", [self.conv(x, (width, into, 1))])
        y = self.node("Relu", [self.conv(y, (width, width, 3), stride=stride)])
        y = self.conv(y, (out, width, 1), scale=RESIDUAL_SCALE)
        if into != out:
            x = self.conv(x, (out, into, 1), stride=stride, scale=np.sqrt(0.5))
        return self.node("Relu", [self.node("Add", [y, x])])


def write(path: Path) -> Path:
    """Write the model: input "x" [N, 3, 224, 224] FP32, output of CLASSES logits; return path."""
    net = _Builder()
    x = net.node("Relu", [net.conv("x", (64, IMAGE[0], 7), stride=2)])
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    channels = 64
    for stage, (width, blocks) in enumerate(STAGES):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            x = net.block(x, channels, width, stride)
            channels = EXPANSION * width
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])])
    weight = net.weight("fc", net.rng.standard_normal((channels, CLASSES)) / np.sqrt(channels))
    bias = net.weight("fc_bias", np.zeros(CLASSES))
    logits = net.node("Gemm", [x, weight, bias])
    graph = helper.make_graph(
        net.nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGE])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["N", CLASSES])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.save(model, path)
    return path
