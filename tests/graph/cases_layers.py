"""Golden networks about layers, their weights, activations, attention, and bodies."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.graph.case import Case
from tests.models import Net
from tests.networks import attention, gelu, layer_norm, linear, scalar, silu, turned


def forced() -> onnx.ModelProto:
    """What the policy leaves in floating point, and the config wants in INT8."""
    net = Net()
    x = net.conv(net.input(), (16, 4), name="narrow")
    x = net.conv(x, (4, 4), name="tiny")
    x = net.conv(x, (4, 16), kernel=1, name="wide")
    y = net.add("Mul", [x, net.add("Sigmoid", [net.conv(x, (16, 16), name="gates")])], name="gate")
    y = turned(net, y, 0, 1, 3, 2)
    return net.finish(net.add("MatMul", [y, x], name="gram"))


def convolution(spatial: int) -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 16, *(8,) * spatial))
    attributes = {"pads": [1] * 2 * spatial}
    for name in ("first", "second"):
        weight = net.random(f"{name}.weight", (16, 16, *(3,) * spatial), fan=16 * 3**spatial)
        x = net.relu(net.add("Conv", [x, weight], name=name, attributes=attributes))
    return net.finish(x)


def conv_1d() -> onnx.ModelProto:
    return convolution(1)


def conv_3d() -> onnx.ModelProto:
    return convolution(3)


def grouped() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 64, 8, 8)), (64, 64), groups=4, name="wide"))
    x = net.relu(net.conv(x, (64, 64), groups=8, name="narrow"))
    x = net.relu(net.conv(x, (64, 64), kernel=1, groups=8, name="pixels"))
    x = net.relu(net.conv(x, (64, 60), kernel=1, name="uneven"))
    return net.finish(net.conv(x, (60, 60), groups=60, name="depthwise"))


def first_and_last() -> onnx.ModelProto:
    """A stem that reads colours and a classifier whose scores are the output."""
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 32), name="stem"))
    x = net.relu(net.conv(x, (32, 32), name="body"))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], name="average")])
    return net.finish(net.add("Softmax", [net.gemm(x, (32, 16), name="classifier")]))


def depthwise() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 32), name="stem"))
    x = net.relu(net.conv(x, (32, 32), groups=32, name="depthwise"))
    x = net.relu(net.conv(x, (32, 32), kernel=1, name="pointwise"))
    return net.finish(net.conv(x, (32, 32), name="head"))


def self_attention(width: int) -> onnx.ModelProto:
    net = Net()
    return net.finish(attention(net, net.input(shape=("N", 6, width)), width, 1, 6))


def attention_kernel() -> onnx.ModelProto:
    return self_attention(32)


def other_attention() -> onnx.ModelProto:
    return self_attention(48)


def left_weights() -> onnx.ModelProto:
    """MLP-Mixer's product over the tokens."""
    net = Net()
    x = net.input(shape=("N", 32, 24))
    x = net.relu(net.add("MatMul", [net.random("mix", (16, 32), fan=32), x], name="tokens"))
    return net.finish(net.matmul(x, (24, 16), name="channels"))


def stacked_product() -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 4, 6, 32))
    x = net.relu(net.add("MatMul", [x, net.random("heads", (4, 32, 16), fan=32)], name="each"))
    return net.finish(net.matmul(x, (16, 16), name="same"))


def embedding() -> onnx.ModelProto:
    net = Net()
    tokens = net.input("tokens", ("N", 6), TensorProto.INT64)
    x = net.add("Gather", [net.random("table", (50, 32)), tokens], name="embed")
    return net.finish(net.matmul(x, (32, 32), name="project"))


def dynamic_product() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.matmul(net.input(shape=("N", 16, 32)), (32, 32), name="project"))
    return net.finish(net.add("MatMul", [x, turned(net, x, 0, 2, 1)], name="gram"))


def shared_weights() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="first"))
    pads = {"pads": [1] * 4}
    x = net.relu(net.add("Conv", [x, "first.weight"], name="again", attributes=pads))
    scaled = net.add("Mul", ["first.weight", net.input("factor", (1,))], name="scaled")
    return net.finish(net.add("Conv", [x, scaled], name="dynamic", attributes=pads))


def weights_behind() -> onnx.ModelProto:
    """Weights behind Transpose, Identity, Cast and DequantizeLinear."""
    net = Net()
    x = net.input(shape=("N", 6, 32))
    x = net.relu(net.add("MatMul", [x, turned(net, net.random("turned", (24, 32), fan=32), 1, 0)]))
    same = net.add("Identity", [net.random("same", (24, 32), fan=24)])
    x = net.relu(net.add("MatMul", [x, same], name="of_same"))
    half = net.weight("half", net.rng.normal(size=(32, 32)).astype(np.float16))
    half = net.add("Cast", [half], attributes={"to": TensorProto.FLOAT})
    x = net.relu(net.add("MatMul", [x, half], name="of_half"))
    stored = net.weight("stored", net.rng.integers(-127, 128, (32, 16)).astype(np.int8))
    scale = net.weight("scale", np.full(16, 0.01, np.float32))
    zero = net.weight("zero", np.zeros(16, np.int8))
    real = net.add("DequantizeLinear", [stored, scale, zero], attributes={"axis": 1})
    return net.finish(net.add("MatMul", [x, real], name="of_stored"))


def unused_initializers() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="used")
    net.random("unused", (16, 16, 3, 3))
    return net.finish(x)


def body() -> onnx.ModelProto:
    """A convolution in each branch of an If, which also reads the tensor around it."""
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="before"))
    switch = net.input("switch", (), TensorProto.BOOL)
    branches = {}
    for name in ("then", "else"):
        weight = net.random(f"{name}.weight", (16, 16, 1, 1), fan=16)
        inner = helper.make_node("Conv", [x, weight], [f"{name}_out"], f"{name}_conv")
        shape = ("N", 16, 8, 8)
        value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, shape)
        branches[f"{name}_branch"] = helper.make_graph([inner], name, [], [value])
    chosen = net.add("If", [switch], name="either", attributes=branches)
    return net.finish(
        net.conv(chosen, (16, 16), name="after"), net.conv(x, (16, 16), name="beside")
    )


def activations() -> onnx.ModelProto:
    """Every activation that is fused into the layer before it, as one operator and spelled out."""
    net = Net(opset=20)
    x = net.input(shape=("N", 16, 8, 8))
    low, six = scalar(net, 0), scalar(net, 6)
    slopes = net.random("slopes", (16, 1, 1))

    def hard_swish(x: str) -> str:
        clipped = net.add("Clip", [net.add("Add", [x, scalar(net, 3)]), low, six])
        return net.add("Div", [net.add("Mul", [x, clipped]), six])

    made: list[Callable[[str], str]] = [
        net.relu,
        lambda x: net.add("Clip", [x, low, six], name="relu6"),
        lambda x: net.add("LeakyRelu", [x]),
        lambda x: net.add("PRelu", [x, slopes]),
        lambda x: net.add("Sigmoid", [x]),
        lambda x: silu(net, x),
        lambda x: net.add("HardSwish", [x]),
        hard_swish,
        lambda x: net.add("Gelu", [x]),
        lambda x: gelu(net, x),
    ]
    for i, function in enumerate(made):
        x = function(net.conv(x, (16, 16), kernel=1, name=f"layer{i}"))
    return net.finish(net.conv(x, (16, 16), kernel=1, name="last"))


def normalization() -> onnx.ModelProto:
    """LayerNorm as one operator and spelled out, and RMSNorm spelled out."""
    net = Net()
    x = net.matmul(layer_norm(net, net.input(shape=("N", 6, 32)), 32), (32, 32), name="first")
    last = {"axes": [-1], "keepdims": 1}
    centred = net.add("Sub", [x, net.add("ReduceMean", [x], attributes=last)])
    squares = net.add("ReduceMean", [net.add("Pow", [centred, scalar(net, 2)])], attributes=last)
    root = net.add("Sqrt", [net.add("Add", [squares, scalar(net, 1e-5)])])
    x = net.add("Mul", [net.add("Div", [centred, root]), net.random("gain", (32,))])
    x = net.matmul(net.add("Add", [x, net.random("shift", (32,))]), (32, 32), name="second")
    mean = net.add("ReduceMean", [net.add("Mul", [x, x])], attributes=last)
    root = net.add("Sqrt", [net.add("Add", [mean, scalar(net, 1e-6)])])
    x = net.add("Mul", [x, net.add("Reciprocal", [root])])
    x = net.add("Mul", [x, net.random("rms.gain", (32,))])
    return net.finish(net.matmul(x, (32, 32), name="third"))


def softmax() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="scores")
    x = net.add("Softmax", [x], name="softmax", attributes={"axis": 1})
    return net.finish(net.conv(x, (16, 16), name="after"))


def masked_attention() -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 6, 32))
    q, k, v = (linear(net, x, (32, 32), name=name) for name in "qkv")
    scores = net.add("MatMul", [q, turned(net, k, 0, 2, 1)], name="scores")
    scores = net.add("Div", [scores, scalar(net, 32**0.5)], name="scale")
    masked = net.add("Add", [scores, net.input("mask", ("N", 1, 6))], name="masked")
    return net.finish(net.add("MatMul", [net.add("Softmax", [masked]), v], name="mix"))


def leftovers() -> onnx.ModelProto:
    """What no layer takes in: shapes, arithmetic, functions, reductions, and the unknown."""
    net = Net()
    x = net.input()
    shape = net.add("Shape", [x], name="shape")
    y = net.add("Tanh", [net.add("Softmax", [x], attributes={"axis": 1})], name="function")
    y = net.add("Sub", [y, x], name="arithmetic")
    y = net.add("ReduceSum", [y, net.weight("axes", np.array([2, 3], np.int64))], name="reduction")
    y = net.add("Expand", [net.add("Hardmax", [y], name="unknown"), shape], name="moves")
    return net.finish(net.conv(x, (16, 16), name="layer"), y)


def other_domain() -> onnx.ModelProto:
    net = Net()
    x = net.add("Sigmoid", [net.conv(net.input(), (16, 16), name="before")], name="custom")
    model = net.finish(net.conv(x, (16, 16), name="after"))
    node = next(node for node in model.graph.node if node.name == "custom")
    node.op_type, node.domain = "QuickGelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


CASES: dict[str, Case] = {
    "forced": Case("forced", forced, layers={"*": "int8"}),
    "conv-1d": Case("conv", conv_1d),
    "conv-3d": Case("conv", conv_3d),
    "grouped-conv": Case("small-channels", grouped),
    "first-and-last": Case("conv", first_and_last),
    "attention-kernel": Case("attention-kernel", attention_kernel),
    "attention": Case("attention", other_attention),
    "dynamic-product": Case("dynamic-product", dynamic_product),
    "left-weights": Case("left-weights", left_weights),
    "stacked-product": Case("stacked-product", stacked_product),
    "embedding": Case("embedding", embedding),
    "shared-weights": Case("conv", shared_weights),
    "weights-behind": Case("product", weights_behind),
    "unused-initializers": Case("conv", unused_initializers),
    "subgraph": Case("subgraph, body", body),
    "fused-activation": Case("fused-activation", activations),
    "normalization": Case("normalization", normalization),
    "softmax": Case("softmax", softmax),
    "attention-scores": Case("attention-scores", masked_attention),
    "leftovers": Case(
        "not-floating, float-function, float-arithmetic, reduction, no-rule", leftovers
    ),
    "other-domain": Case("other-domain", other_domain),
}
