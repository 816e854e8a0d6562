"""Small models for the engines' tests: float, Q/DQ, odd signatures; the reference's answers."""

import math
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantlab.engines.base import Array

CHANNELS = 16


def float_net() -> onnx.ModelProto:
    """Conv-Relu, Conv-Add(residual)-Relu, pooling, Gemm: x [N, 3, 8, 8] to y [N, 5]."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a2"], "add2"),
        helper.make_node("Relu", ["a2"], ["r2"], "relu2"),
        *_head("r2", "w3"),
    ]
    return _model(nodes, _weights())


def quantized_net(zero: np.int8 | np.uint8, *, second_in_float: bool = False) -> onnx.ModelProto:
    """Return ``float_net`` with Q/DQ around both Conv and the Gemm; ``zero`` decides signedness."""
    weights = _weights()
    made: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def activation(tensor: str, scale: float) -> str:
        made.extend(_named({f"{tensor}_s": np.float32(scale), f"{tensor}_z": zero}))
        quantization = [f"{tensor}_s", f"{tensor}_z"]
        nodes.append(helper.make_node("QuantizeLinear", [tensor, *quantization], [f"{tensor}_q"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{tensor}_q", *quantization], [f"{tensor}_d"])
        )
        return f"{tensor}_d"

    def weight(name: str) -> str:
        value = weights.pop(name)
        scale = np.abs(value).reshape(len(value), -1).max(1) / 127
        steps = np.rint(value / scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
        zeros = np.zeros(len(value), np.int8)
        made.extend(_named({f"{name}_q": steps, f"{name}_s": scale, f"{name}_z": zeros}))
        inputs = [f"{name}_q", f"{name}_s", f"{name}_z"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_d"], axis=0))
        return f"{name}_d"

    levels = 127 if zero.dtype == np.int8 or zero else 255
    conv1 = [activation("x", 4 / 127), weight("w1"), "b1"]
    nodes.append(helper.make_node("Conv", conv1, ["c1"], "conv1", pads=[1] * 4))
    nodes.append(helper.make_node("Relu", ["c1"], ["r1"], "relu1"))
    identity = activation("r1", 4 / levels)
    conv2 = [identity, "w2" if second_in_float else weight("w2"), "b2"]
    nodes.append(helper.make_node("Conv", conv2, ["c2"], "conv2", pads=[1] * 4))
    branch = "c2" if second_in_float else activation("c2", 4 / 127)
    nodes.append(helper.make_node("Add", [branch, identity], ["a2"], "add2"))
    nodes.append(helper.make_node("Relu", ["a2"], ["r2"], "relu2"))
    *pooling, product = _head(activation("r2", 4 / levels), weight("w3"))
    nodes += pooling
    product.input[0] = activation("flat", 4 / levels)
    nodes.append(product)
    return _model(nodes, weights, made)


def half_net() -> onnx.ModelProto:
    """Return ``float_net`` with FP16 weights and arithmetic between float32 ends."""
    model = float_net()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    model.graph.node[0].input[0] = "x16"
    model.graph.node[-1].output[0] = "y16"
    first = helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16)
    last = helper.make_node("Cast", ["y16"], ["y"], to=TensorProto.FLOAT)
    nodes = [first, *model.graph.node, last]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def odd_net() -> onnx.ModelProto:
    """Float, int64 and scalar inputs, one unused; outputs: two names of one tensor, an input."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "gather"),
        helper.make_node("Mul", ["rows", "factor"], ["scaled"], "scale"),
        helper.make_node("Add", ["scaled", "x"], ["sum"], "add"),
        helper.make_node("Identity", ["sum"], ["alias"], "identity"),
        helper.make_node("Identity", ["ids"], ["same_ids"], "pass"),
        helper.make_node("ReduceMax", ["sum"], ["largest"], "largest", keepdims=0),
    ]
    table = np.random.default_rng(7).standard_normal((9, 4)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "odd",
        [
            value("x", TensorProto.FLOAT, ["N", 4]),
            value("ids", TensorProto.INT64, ["N"]),
            value("factor", TensorProto.FLOAT, []),
            value("unused", TensorProto.BOOL, ["N"]),
        ],
        [
            value("sum", TensorProto.FLOAT, ["N", 4]),
            value("alias", TensorProto.FLOAT, ["N", 4]),
            value("same_ids", TensorProto.INT64, ["N"]),
            value("largest", TensorProto.FLOAT, []),
        ],
        _named({"table": table}),
    )
    return _checked(graph)


def single_node(op: str, element: int = TensorProto.FLOAT, domain: str = "") -> onnx.ModelProto:
    """Return an unchecked model of one node, x [N, 3] to y."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], "only", domain=domain)],
        "single",
        [value("x", element, ["N", 3])],
        [value("y", element, ["N", 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("unknown", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def odd_inputs(batch: int) -> dict[str, Array]:
    rng = np.random.default_rng(batch)
    return {
        "x": rng.standard_normal((batch, 4)).astype(np.float32),
        "ids": rng.integers(0, 9, batch),
        "factor": np.asarray(1.5, np.float32),
        "unused": np.ones(batch, np.bool_),
    }


def images(batch: int, seed: int = 0) -> dict[str, Array]:
    """Return x (batch, 3, 8, 8)."""
    x = np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)
    return {"x": x.clip(-4, 4)}


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def expected(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    """Return the outputs that ONNX's reference evaluator gives."""
    evaluator = ReferenceEvaluator(model)
    values = evaluator.run(None, dict(inputs))
    return dict(zip(evaluator.output_names, map(np.asarray, values), strict=True))


def _head(tensor: str, weights: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", weights, "b3"], ["y"], "fc", transB=1),
    ]


def _weights() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(3)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32) / math.sqrt(math.prod(shape[1:]))

    return {
        "w1": drawn(CHANNELS, 3, 3, 3),
        "b1": drawn(CHANNELS),
        "w2": drawn(CHANNELS, CHANNELS, 3, 3),
        "b2": drawn(CHANNELS),
        "w3": drawn(5, CHANNELS),
        "b3": drawn(5),
    }


def _named(values: dict[str, NDArray[np.generic] | np.generic]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.float32]],
    extra: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [value("y", TensorProto.FLOAT, ["N", 5])],
        _named({**weights}) + (extra or []),
    )
    return _checked(graph)


def _checked(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model
