"""A model that uses every part of ONNX whose change must show, and ways to save it again."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def constant(name: str, *shape: int, seed: int = 0) -> TensorProto:
    """Return a float32 initializer."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def branch(name: str, output: str, seed: int) -> onnx.GraphProto:
    """Return a branch of an If: it adds its own initializer, which is called ``shift`` in both."""
    return helper.make_graph(
        [helper.make_node("Add", ["relu", "shift"], [output])],
        name,
        [],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 4, 6, 6])],
        [constant("shift", 4, 1, 1, seed=seed)],
    )


def build() -> onnx.ModelProto:
    """Return a model of convolution, branches, a function, a constant, and a sparse weight."""
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "sparse"),
        numpy_helper.from_array(np.array([1, 5], np.int64), "sparse_indices"),
        [6],
    )
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], "conv", pads=[1, 1, 1, 1], group=1),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node(
            "If",
            ["flag"],
            ["branched"],
            "if",
            then_branch=branch("then", "then_out", seed=2),
            else_branch=branch("else", "else_out", seed=3),
        ),
        helper.make_node("Constant", [], ["half"], "constant", value=half),
        helper.make_node("Halve", ["branched", "half"], ["halved"], "halve", domain="local"),
        helper.make_node("Clip", ["halved", "low", ""], ["clipped"], "clip"),
        helper.make_node("Add", ["clipped", "sparse"], ["y"], "add"),
    ]
    function = helper.make_function(
        "local",
        "Halve",
        ["a", "c"],
        ["r"],
        [helper.make_node("Mul", ["a", "c"], ["r"])],
        [helper.make_opsetid("", 17)],
    )
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [
            constant("w", 4, 3, 3, 3),
            constant("b", 4, seed=1),
            numpy_helper.from_array(np.array(-1.0, np.float32), "low"),
        ],
        sparse_initializer=[sparse],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)
