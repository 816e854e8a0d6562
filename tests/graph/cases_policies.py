"""Golden networks under the other policies."""

import onnx

from tests.graph import cases_joins, cases_layers
from tests.graph.case import Case
from tests.models import Net
from tests.networks import silu, turned


def kernels() -> onnx.ModelProto:
    """SiLU, a residual Add, an average and a classifier."""
    net = Net()
    x = silu(net, net.conv(net.input(), (16, 16), name="stem"))
    x = net.add("Add", [x, net.conv(x, (16, 16), name="inner")], name="sum")
    x = net.add("GlobalAveragePool", [net.add("LeakyRelu", [x])], name="average")
    x = net.gemm(net.add("Flatten", [x], name="flat"), (16, 16), name="hidden")
    return net.finish(net.matmul(net.relu(x), (16, 16), name="last"))


def refusals() -> onnx.ModelProto:
    """Computed weights, a stack of matrices, and operators around what is in floating point."""
    net = Net()
    x = net.input(shape=("N", 4, 16, 32))
    x = net.matmul(x, (32, 32), name="layer")
    x = net.add("MatMul", [x, net.random("stack", (4, 32, 32), fan=32)], name="stacked")
    x = net.add("MatMul", [x, turned(net, x, 0, 1, 3, 2)], name="computed")
    return net.finish(net.add("Sigmoid", [x], name="function"))


def output() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="inner"))
    return net.finish(net.conv(x, (16, 16), name="last"))


def grouped_deconvolution() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 32, 8, 8)), (32, 32), name="before"))
    x = net.relu(net.conv_transpose(x, (32, 32), groups=2, name="up"))
    return net.finish(net.conv(x, (32, 32), name="after"))


def narrow() -> onnx.ModelProto:
    """Return a narrow product, and one whose weights are a vector."""
    net = Net()
    x = net.add(
        "Flatten", [net.add("GlobalAveragePool", [net.relu(net.conv(net.input(), (16, 16)))])]
    )
    x = net.matmul(x, (16, 8), name="narrow")
    return net.finish(net.add("MatMul", [net.relu(x), net.random("v", (8,))], name="vector"))


CASES: dict[str, Case] = {
    "conservative-depthwise": Case(
        "depthwise, first-layer, last-layer", cases_layers.depthwise, "conservative"
    ),
    "conservative-classifier": Case("last-layer", cases_layers.first_and_last, "conservative"),
    "conservative-float-gate": Case("float-gate", cases_joins.gate, "conservative"),
    "openvino-grouped-deconvolution": Case(
        "grouped-deconvolution", grouped_deconvolution, "openvino"
    ),
    "openvino-interpolation": Case("interpolation", cases_joins.interpolation, "openvino"),
    "openvino-integer-copy": Case("integer-copy", cases_joins.pass_through, "openvino"),
    "openvino-pyramid-pools": Case("integer-max", cases_joins.pyramid_pools, "openvino"),
    "openvino-integer-view": Case("integer-view", cases_joins.moves_integers, "openvino"),
    "openvino-vector-product": Case("vector-product", narrow, "openvino"),
    "onnxruntime-kernels": Case("kernel-weights, kernel-integers", kernels, "onnxruntime"),
    "onnxruntime-kernel-moves": Case("kernel-moves", cases_joins.pass_through, "onnxruntime"),
    "onnxruntime-pinned": Case("pinned", kernels, "onnxruntime", {"inner": "fp32"}),
    "onnxruntime-refusals": Case("float-weights, no-matrix, float-inputs", refusals, "onnxruntime"),
    "onnxruntime-no-move": Case("no-move", cases_joins.interpolation, "onnxruntime"),
    "onnxruntime-model-output": Case("model-output", output, "onnxruntime"),
}
