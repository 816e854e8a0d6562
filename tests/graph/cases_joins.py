"""Golden networks about sums, gates, pools, and moving elements."""

import numpy as np
import onnx

from tests.graph.case import Case
from tests.models import Net
from tests.networks import gate as se_gate
from tests.networks import layer_norm, linear, silu, turned


def chain() -> onnx.ModelProto:
    """Three branches summed one after the other, as where resolutions are merged."""
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    a = net.conv(x, (16, 16), name="a")
    b = net.conv(net.relu(net.conv(x, (16, 16), name="b0")), (16, 16), name="b1")
    c = net.conv(x, (16, 16), kernel=1, name="c")
    return net.finish(
        net.relu(net.add("Add", [net.add("Add", [a, b], name="two"), c], name="three"))
    )


def diamond() -> onnx.ModelProto:
    """Two branches of one length that fork at one tensor and meet again."""
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    left, right = (net.conv(x, (16, 16), name=name) for name in ("left", "right"))
    x = net.relu(net.add("Add", [left, right], name="meet"))
    return net.finish(net.conv(x, (16, 16), name="after"))


def silu_residual() -> onnx.ModelProto:
    net = Net()
    x = silu(net, net.conv(net.input(), (16, 16), name="stem"))
    y = silu(net, net.conv(x, (16, 16), name="inner"))
    return net.finish(net.conv(net.add("Add", [x, y], name="sum"), (16, 16), name="after"))


def normalized_stream() -> onnx.ModelProto:
    """ConvNeXt's block with its products as convolutions."""
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    y = turned(net, net.conv(x, (16, 16), groups=16, name="depthwise"), 0, 2, 3, 1)
    y = turned(net, layer_norm(net, y, 16, name="norm"), 0, 3, 1, 2)
    y = net.relu(net.conv(y, (16, 32), kernel=1, name="up"))
    return net.finish(net.add("Add", [x, net.conv(y, (32, 16), kernel=1, name="down")], name="sum"))


def gate() -> onnx.ModelProto:
    net = Net()
    x = silu(net, net.conv(net.input(), (16, 16), name="stem"))
    return net.finish(net.conv(se_gate(net, x, 16, 8), (16, 16), kernel=1, name="project"))


def gated_unit() -> onnx.ModelProto:
    """SwiGLU: one product gates another."""
    net = Net()
    x = net.input(shape=("N", 6, 32))
    opened = silu(net, net.matmul(x, (32, 64), name="opens"))
    both = net.add("Mul", [opened, net.matmul(x, (32, 64), name="passes")], name="gate")
    return net.finish(net.matmul(both, (64, 32), name="down"))


def nested_concat() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    a = net.relu(net.conv(x, (16, 16), name="a"))
    inner = net.add("Concat", [x, a], name="inner", attributes={"axis": 1})
    b = net.relu(net.conv(inner, (32, 16), name="b"))
    outer = net.add("Concat", [inner, b], name="outer", attributes={"axis": 1})
    return net.finish(net.conv(outer, (48, 16), kernel=1, name="after"))


def half_float_concat() -> onnx.ModelProto:
    """One reader is no INT8 layer, so the Concat stays in floating point for both."""
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    both = net.add("Concat", [x, net.conv(x, (16, 16))], name="both", attributes={"axis": 1})
    return net.finish(net.conv(both, (32, 16), name="after"), net.add("Sigmoid", [both]))


def integers(net: Net, *values: int) -> str:
    return net.weight(f"integers{len(net.weights)}", np.array(values, np.int64))


def pass_through() -> onnx.ModelProto:
    """Split, Slice, Pad, Transpose, DepthToSpace and a nearest Resize between convolutions."""
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 16, 8, 8)), (16, 32), name="stem"))
    net.add("Split", [x], name="split", attributes={"axis": 1}, outputs=2)
    left = net.conv("split_out", (16, 64), kernel=1, name="left")
    left = net.add("DepthToSpace", [left], name="shuffle", attributes={"blocksize": 2})
    cut = net.add("Slice", ["split_out1", *(integers(net, v) for v in (0, 4, 2))], name="cut")
    cut = net.add("Pad", [cut, integers(net, 0, 0, 2, 0, 0, 0, 2, 0)], name="pad")
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    cut = net.add("Resize", [cut, "", scales], name="resize", attributes={"mode": "nearest"})
    both = net.add("Concat", [left, cut], name="both", attributes={"axis": 1})
    rows = turned(net, both, 0, 1, 3, 2)
    return net.finish(net.conv(rows, (32, 16), name="after"))


def resize(mode: str, *, last: bool) -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    x = net.add("Resize", [x, "", scales], name="resize", attributes={"mode": mode})
    return net.finish(x if last else net.conv(x, (16, 16), name="after"))


def integer_resize() -> onnx.ModelProto:
    return resize("linear", last=False)


def float_resize() -> onnx.ModelProto:
    return resize("linear", last=True)


def interpolation() -> onnx.ModelProto:
    return resize("linear", last=False)


def pyramid_pools() -> onnx.ModelProto:
    """Pools of pools, all of them concatenated."""
    net = Net()
    pools = [net.relu(net.conv(net.input(), (16, 16), name="stem"))]
    for i in range(2):
        attributes = {"kernel_shape": [3, 3], "pads": [1] * 4}
        pools.append(net.add("MaxPool", [pools[-1]], name=f"pool{i}", attributes=attributes))
    both = net.add("Concat", pools, name="all", attributes={"axis": 1})
    return net.finish(net.conv(both, (48, 16), kernel=1, name="after"))


def moves_integers() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    return net.finish(net.gemm(net.add("Flatten", [x], name="flat"), (1024, 16), name="last"))


def moves_floats() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="stem")
    return net.finish(turned(net, net.add("Softmax", [x], attributes={"axis": 1}), 0, 2, 3, 1))


def deferred_bias() -> onnx.ModelProto:
    net = Net()
    x = linear(net, net.input(shape=("N", 6, 32)), (32, 32), name="first")
    return net.finish(linear(net, net.relu(x), (32, 32), name="second"))


CASES: dict[str, Case] = {
    "add-chain": Case("residual-add", chain),
    "diamond": Case("residual-add", diamond),
    "silu-residual": Case("residual-add", silu_residual),
    "normalized-stream": Case("normalized-stream", normalized_stream),
    "integer-gate": Case("integer-gate", gate),
    "gate": Case("gate", gated_unit),
    "integer-concat": Case("integer-concat", nested_concat),
    "half-float-concat": Case("concat", half_float_concat),
    "pyramid-pools": Case("integer-max", pyramid_pools),
    "integer-copy": Case("integer-copy", pass_through),
    "integer-resize": Case("integer-resize", integer_resize),
    "float-resize": Case("float-resize", float_resize),
    "moves-integers": Case("moves-integers", moves_integers),
    "moves-floats": Case("moves-floats", moves_floats),
    "bias-of-a-product": Case("constant-add", deferred_bias),
}
