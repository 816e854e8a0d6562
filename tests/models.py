"""Small ONNX models, built in code, for every test that needs one.

``Net`` appends one node at a time and returns the name of its output; ``finish`` gives the model.
Weights are random with a fixed seed and scaled so that activations stay near 1.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Dim = int | str
Array = NDArray[np.generic]


class Net:
    """A model under construction."""

    def __init__(self, *, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(
        self,
        name: str = "x",
        shape: Sequence[Dim] = ("N", 16, 8, 8),
        dtype: int = TensorProto.FLOAT,
    ) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def weight(self, name: str, values: Array) -> str:
        self.weights[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def random(self, name: str, shape: Sequence[int], *, fan: int = 1) -> str:
        values = self.rng.normal(size=shape) / np.sqrt(fan)
        return self.weight(name, values.astype(np.float32))

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        *,
        name: str = "",
        attributes: dict[str, Any] | None = None,
        outputs: int = 1,
    ) -> str:
        name = name or f"{op.lower()}{len(self.nodes)}"
        made = [f"{name}_out", *(f"{name}_out{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, made, name, **(attributes or {})))
        return made[0]

    def conv(
        self,
        x: str,
        channels: tuple[int, int],
        *,
        kernel: int = 3,
        groups: int = 1,
        bias: bool = False,
        name: str = "",
    ) -> str:
        name = name or f"conv{len(self.nodes)}"
        read, made = channels
        shape = (made, read // groups, kernel, kernel)
        inputs = [x, self.random(f"{name}.weight", shape, fan=shape[1] * kernel**2)]
        if bias:
            inputs.append(self.random(f"{name}.bias", (made,)))
        attributes: dict[str, Any] = {"pads": [kernel // 2] * 4, "group": groups}
        return self.add("Conv", inputs, name=name, attributes=attributes)

    def conv_transpose(
        self, x: str, channels: tuple[int, int], *, groups: int = 1, name: str = ""
    ) -> str:
        name = name or f"deconv{len(self.nodes)}"
        read, made = channels
        shape = (read, made // groups, 2, 2)
        inputs = [x, self.random(f"{name}.weight", shape, fan=shape[0] // groups)]
        attributes: dict[str, Any] = {"strides": [2, 2], "group": groups}
        return self.add("ConvTranspose", inputs, name=name, attributes=attributes)

    def norm(self, x: str, channels: int, *, name: str = "") -> str:
        name = name or f"norm{len(self.nodes)}"
        inputs = [
            x,
            self.weight(f"{name}.scale", self.rng.uniform(0.5, 1.5, channels).astype(np.float32)),
            self.random(f"{name}.shift", (channels,)),
            self.random(f"{name}.mean", (channels,)),
            self.weight(f"{name}.var", self.rng.uniform(0.5, 1.5, channels).astype(np.float32)),
        ]
        return self.add("BatchNormalization", inputs, name=name)

    def gemm(
        self, x: str, sizes: tuple[int, int], *, transposed: bool = True, name: str = ""
    ) -> str:
        name = name or f"gemm{len(self.nodes)}"
        read, made = sizes
        shape = (made, read) if transposed else (read, made)
        inputs = [x, self.random(f"{name}.weight", shape, fan=read)]
        inputs.append(self.random(f"{name}.bias", (made,)))
        return self.add("Gemm", inputs, name=name, attributes={"transB": int(transposed)})

    def matmul(self, x: str, sizes: tuple[int, int], *, name: str = "") -> str:
        name = name or f"matmul{len(self.nodes)}"
        return self.add(
            "MatMul", [x, self.random(f"{name}.weight", sizes, fan=sizes[0])], name=name
        )

    def relu(self, x: str) -> str:
        return self.add("Relu", [x])

    def pool(self, x: str, op: str = "MaxPool") -> str:
        return self.add(op, [x], attributes={"kernel_shape": [2, 2], "strides": [2, 2]})

    def finish(self, *outputs: str, weights_as_inputs: bool = False) -> onnx.ModelProto:
        """Return the model; ``weights_as_inputs`` is how IR version 3 listed its weights."""
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        inputs = list(self.inputs)
        if weights_as_inputs:
            inputs += [
                helper.make_tensor_value_info(t.name, t.data_type, t.dims)
                for t in self.weights.values()
            ]
        graph = helper.make_graph(self.nodes, "net", inputs, values, list(self.weights.values()))
        imports = [helper.make_opsetid("", self.opset)]
        version = 3 if weights_as_inputs else helper.find_min_ir_version_for(imports)
        made = helper.make_model(graph, opset_imports=imports, ir_version=version)
        inferred = onnx.shape_inference.infer_shapes(made)
        del made.graph.output[:]
        made.graph.output.extend(inferred.graph.output)
        return made


def write(model: onnx.ModelProto, path: Path) -> Path:
    """Save a model and return its path."""
    onnx.save(model, path)
    return path


def feeds(model: onnx.ModelProto, *, batch: int = 2, seed: int = 1) -> dict[str, Array]:
    """Return random float32 inputs; every dynamic axis is ``batch``."""
    rng = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: rng.normal(
            size=[d.dim_value or batch for d in value.type.tensor_type.shape.dim]
        ).astype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        for value in model.graph.input
        if value.name not in weights
    }


def residual(*, opset: int = 17, classes: int = 16, channels: int = 16) -> onnx.ModelProto:
    """Stem, an identity block, a downsampling block and a classifier, with normalizations."""
    net = Net(opset=opset)
    x = net.relu(net.norm(net.conv(net.input(shape=("N", 1, 8, 8)), (1, channels)), channels))
    for i in range(2):
        y = net.relu(net.norm(net.conv(x, (channels, channels), name=f"a{i}"), channels))
        y = net.norm(net.conv(y, (channels, channels), name=f"b{i}"), channels)
        if i == 1:
            x = net.norm(net.conv(x, (channels, channels), kernel=1, name="shortcut"), channels)
        x = net.relu(net.add("Add", [y, x], name=f"add{i}"))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    return net.finish(net.gemm(x, (channels, classes), name="classifier"))


Block = Callable[[Net, str], str]


def _conv_block(net: Net, x: str) -> str:
    return net.relu(net.norm(net.conv(x, (16, 16)), 16))


def _biased_block(net: Net, x: str) -> str:
    made = net.conv(x, (16, 16), kernel=1, bias=True)
    shift = net.random(f"shift{len(net.nodes)}", (1, 16, 1, 1))
    return net.relu(net.add("Add", [shift, made]))


def _depthwise_block(net: Net, x: str) -> str:
    return net.conv(net.relu(net.norm(net.conv(x, (16, 16), groups=16), 16)), (16, 16), kernel=1)


def _residual_block(net: Net, x: str) -> str:
    made = net.norm(net.conv(net.relu(net.norm(net.conv(x, (16, 16)), 16)), (16, 16)), 16)
    return net.relu(net.add("Add", [x, made]))


def _shortcut_block(net: Net, x: str) -> str:
    made = net.conv(net.relu(net.conv(x, (16, 16))), (16, 16))
    return net.relu(net.add("Add", [net.norm(net.conv(x, (16, 16), kernel=1), 16), made]))


def _concat_block(net: Net, x: str) -> str:
    left, right = net.relu(net.conv(x, (16, 8))), net.relu(net.conv(x, (16, 8), kernel=1))
    return net.add("Concat", [left, right], attributes={"axis": 1})


def _gate_block(net: Net, x: str) -> str:
    gate = net.relu(net.conv(net.add("GlobalAveragePool", [x]), (16, 16), kernel=1, bias=True))
    return net.add("Mul", [x, net.add("Sigmoid", [gate])])


def _dropout_block(net: Net, x: str) -> str:
    return net.add("Dropout", [net.conv(x, (16, 16))])


def _identity_block(net: Net, x: str) -> str:
    return net.add("Identity", [net.conv(x, (16, 16))])


BLOCKS: dict[str, Block] = {
    "conv": _conv_block,
    "biased": _biased_block,
    "depthwise": _depthwise_block,
    "residual": _residual_block,
    "shortcut": _shortcut_block,
    "concat": _concat_block,
    "gate": _gate_block,
    "dropout": _dropout_block,
    "identity": _identity_block,
}
"""Pieces of networks; each takes and gives 16 channels and keeps height and width."""


def stacked(blocks: Sequence[str], *, opset: int = 17, seed: int = 0) -> onnx.ModelProto:
    """Return a network of BLOCKS with a stem before and a classifier behind them."""
    net = Net(opset=opset, seed=seed)
    x = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem"))
    for block in blocks:
        x = BLOCKS[block](net, x)
    x = net.add("Flatten", [net.pool(x)])
    x = net.relu(net.gemm(x, (256, 32), transposed=False))
    return net.finish(net.gemm(x, (32, 16), name="classifier"))
