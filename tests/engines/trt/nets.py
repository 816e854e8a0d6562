"""Models that TensorRT's parser and builder are given: good ones, and one for each refusal."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import Array, Net

Dims = Sequence[int | str]


def small_net(*, batch: int | str = 2) -> onnx.ModelProto:
    """Conv, Relu, Conv: x [batch, 16, 8, 8] to conv2_out."""
    net = Net()
    x = net.input(shape=(batch, 16, 8, 8))
    x = net.add("Relu", [net.conv(x, (16, 16), name="conv1")], name="relu1")
    return net.finish(net.conv(x, (16, 16), name="conv2"))


def deep_net(layers: int) -> onnx.ModelProto:
    """Many different convolutions: takes TensorRT-RTX some seconds."""
    net = Net()
    x = net.input(shape=(1, 16, 16, 16))
    for index in range(layers):
        y = net.add("Relu", [net.conv(x, (16, 16), kernel=(1, 3, 5, 7)[index % 4])])
        x = net.add("Sigmoid", [net.add("Add", [x, y])])
    return net.finish(x)


def single(
    node: onnx.NodeProto,
    *,
    inputs: dict[str, tuple[int, Dims]] | None = None,
    output: int = TensorProto.FLOAT,
    weights: dict[str, Array] | None = None,
    domain: str = "",
) -> onnx.ModelProto:
    """One node, not checked by ONNX, from ``inputs`` (x float [1, 3, 4, 4] by default) to y."""
    given = inputs or {"x": (TensorProto.FLOAT, [1, 3, 4, 4])}
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_tensor_value_info(name, *what) for name, what in given.items()],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", 18)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def unknown_operator() -> onnx.ModelProto:
    node = helper.make_node("Fold", ["x"], ["y"], "fold1", domain="acme.ops")
    return single(node, domain="acme.ops")


def unknown_inside_if() -> onnx.ModelProto:
    """An If whose one branch has an operator that nobody knows."""

    def branch(node: onnx.NodeProto) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([node], "branch", [], [out])

    node = helper.make_node(
        "If",
        ["condition"],
        ["y"],
        "choose",
        then_branch=branch(helper.make_node("Fold", ["x"], ["a"], "fold2", domain="acme.ops")),
        else_branch=branch(helper.make_node("Relu", ["x"], ["b"], "relu2")),
    )
    inputs: dict[str, tuple[int, Dims]] = {
        "x": (TensorProto.FLOAT, [4]),
        "condition": (TensorProto.BOOL, []),
    }
    return single(node, inputs=inputs, domain="acme.ops")


def integer_bias() -> onnx.ModelProto:
    node = helper.make_node("DequantizeLinear", ["b", "s", "z"], ["y"], "bias_dq")
    weights: dict[str, Array] = {
        "b": np.arange(4, dtype=np.int32),
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.int32),
    }
    return single(node, weights=weights)


def zero_scale() -> onnx.ModelProto:
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], "quantize1")
    weights: dict[str, Array] = {"s": np.array(0, np.float32), "z": np.array(0, np.int8)}
    return single(node, weights=weights, output=TensorProto.INT8)


def asymmetric() -> onnx.ModelProto:
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], "quantize1")
    weights: dict[str, Array] = {"s": np.array(0.1, np.float32), "z": np.array(3, np.int8)}
    return single(node, weights=weights, output=TensorProto.INT8)


def integer_conv() -> onnx.ModelProto:
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"], "conv1")
    weights: dict[str, Array] = {"w": np.ones((1, 3, 3, 3), np.int8)}
    inputs: dict[str, tuple[int, Dims]] = {"x": (TensorProto.INT8, [1, 3, 4, 4])}
    return single(node, inputs=inputs, weights=weights, output=TensorProto.INT32)


def shape_as_input() -> onnx.ModelProto:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape1")
    inputs: dict[str, tuple[int, Dims]] = {
        "x": (TensorProto.FLOAT, [2, 6]),
        "shape": (TensorProto.INT64, [2]),
    }
    return single(node, inputs=inputs)


def picky_reshape() -> onnx.ModelProto:
    """x [N, 35] to [4, ...]: takes batches that are multiples of 4 only."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape1")
    return single(
        node,
        inputs={"x": (TensorProto.FLOAT, ["N", 35])},
        weights={"shape": np.array([4, -1])},
    )
