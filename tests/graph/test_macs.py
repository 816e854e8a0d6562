"""Work of a layer, against counting every product."""

import onnx
import onnx_ir as ir
import pytest

from quantlab.graph.macs import macs
from quantlab.graph.normalize import normalize
from tests.models import Net


def of(model: onnx.ModelProto, name: str) -> int | None:
    inferred = onnx.shape_inference.infer_shapes(model)
    nodes = normalize(ir.from_proto(inferred)).model.graph
    return macs(next(node for node in nodes if node.name == name))


def net() -> onnx.ModelProto:
    made = Net()
    x = made.conv(made.input(shape=("N", 16, 8, 8)), (16, 32), groups=4, name="grouped")
    x = made.conv_transpose(x, (32, 8), name="up")
    x = made.add("Flatten", [x])
    return made.finish(made.gemm(x, (8 * 16 * 16, 10), name="last"))


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("grouped", 8 * 8 * 32 * 4 * 9),  # pixels, channels made, channels read by each, kernel
        ("up", 8 * 8 * 32 * 8 * 4),  # every pixel that is read, times the kernel
        ("last", 2048 * 10),
        ("flatten2", None),
    ],
)
def test_products_of_one_sample(name: str, products: int | None) -> None:
    assert of(net(), name) == products


def test_a_fixed_batch_and_rows_count() -> None:
    made = Net()
    x = made.input(shape=(3, 7, 24))
    assert of(made.finish(made.matmul(x, (24, 16), name="rows")), "rows") == 3 * 7 * 24 * 16
    turned = Net()
    y = turned.input(shape=(24, 5))
    weight = turned.random("w", (24, 16))
    product = turned.add("Gemm", [y, weight], name="turned", attributes={"transA": 1})
    assert of(turned.finish(product), "turned") == 5 * 24 * 16


def test_what_is_computed_or_unknown_has_no_count() -> None:
    made = Net()
    kernel = made.input("kernel", (16, 16, 1, 1))
    x = made.input(shape=("N", 16, 8, 8))
    assert of(made.finish(made.add("Conv", [x, kernel], name="dynamic")), "dynamic") is None
    model = made.finish(made.conv(x, (16, 16), name="plain"))
    graph = normalize(ir.from_proto(model)).model.graph
    node = next(node for node in graph if node.name == "plain")
    node.outputs[0].shape = None
    assert macs(node) is None


def test_an_axis_of_minus_one_is_open() -> None:
    net = Net()
    model = net.finish(net.conv(net.input(shape=("N", 16, 8, 8)), (16, 32), name="layer"))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    node = next(node for node in graph if node.name == "layer")
    named = macs(node)
    made = node.outputs[0]
    assert made.shape is not None
    made.shape = ir.Shape([-1, *made.shape[1:]])
    assert macs(node) == named
    assert named is not None
    assert named > 0
