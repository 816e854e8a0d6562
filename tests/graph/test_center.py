"""Centring: FP32 computes the same whatever the layers are, and what cannot be centred stays."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quantlab.graph.center import Centred, center
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.simulate import session
from tests.models import Net, feeds

CHANNELS = 32
THRESHOLD = 2.0


def centred(model: onnx.ModelProto, **thresholds: float) -> tuple[ir.Model, Centred]:
    prepared = prepare(ir.from_proto(model)).model
    placement = place(prepared)
    known = {name: thresholds.get(name, THRESHOLD) for name in placement.tensors}
    return prepared, center(prepared, placement, known)


def same(model: onnx.ModelProto, before: ir.Model, after: ir.Model, size: int = 2) -> None:
    fed = feeds(model, batch=size)
    old, new = (session(one).run(None, fed)[0] for one in (before, after))
    assert np.abs(old - new).max() < 1e-5 * max(np.abs(old).max(), 1.0)


def test_a_clip_without_bounds_and_a_map_beyond_the_limit_are_left_alone() -> None:
    net = Net()
    x = net.add("Clip", [net.conv(net.input(), (16, 16), name="first")])
    _, found = centred(net.finish(net.conv(x, (16, 16), name="second")))
    assert not found.shifts
    for size, count in ((8, 1), (600, 0)):
        net = Net()
        x = net.relu(net.conv(net.input(shape=("N", 16, size, size)), (16, 16), name="first"))
        _, found = centred(net.finish(net.conv(x, (16, 16), name="second")))
        assert len(found.shifts) == count


@st.composite
def convolutions(draw: st.DrawFn) -> Mapping[str, list[int]]:
    axes = draw(st.integers(1, 3))

    def each(low: int, high: int, count: int = axes) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    return {
        "kernel_shape": each(1, 3),
        "strides": each(1, 2),
        "dilations": each(1, 2),
        "pads": each(0, 2, 2 * axes),
        "group": [draw(st.sampled_from([1, 2, CHANNELS]))],
    }


@given(convolutions(), st.floats(0.1, 10.0), st.sampled_from(["Relu", "Clip"]))
def test_fp32_computes_the_same_behind_any_convolution(
    attributes: Mapping[str, list[int]], threshold: float, op: str
) -> None:
    axes, group = len(attributes["kernel_shape"]), attributes["group"][0]
    net = Net()
    x = net.input(shape=("N", CHANNELS, *[7] * axes))
    stem = net.random("stem.weight", (CHANNELS, CHANNELS, *[1] * axes), fan=CHANNELS)
    made = net.add("Conv", [x, stem], name="stem")
    bounds = [net.weight(f"bound{n}", np.array(n, np.float32)) for n in (0, 6)]
    made = net.add(op, [made, *bounds] if op == "Clip" else [made], name="act")
    shape = (CHANNELS, CHANNELS // group, *attributes["kernel_shape"])
    weights = net.random("conv.weight", shape, fan=int(np.prod(shape[1:])))
    bias = net.random("conv.bias", (CHANNELS,))
    options = {**attributes, "group": group}
    model = net.finish(net.add("Conv", [made, weights, bias], name="conv", attributes=options))
    before, found = centred(model, act_out=threshold)
    assume("act_out" in place(before).tensors)  # a rule leaves small ones in floating point
    assert found.shifts == {"act_out": pytest.approx(threshold / 2)}
    assert found.moved == {"act_out", "stem_out"}
    assert not found.maps or any(attributes["pads"])
    same(model, before, found.model)


def product(kind: str) -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 6, 32) if kind == "matmul" else ("N", 32))
    if kind == "matmul":
        bias = net.random("shift", (32,))
        made = net.relu(net.add("Add", [net.matmul(x, (32, 32), name="first"), bias]))
        return net.finish(net.matmul(made, (32, 32), name="last"))
    made = net.relu(net.gemm(x, (32, 32), transposed=kind == "gemm transposed", name="first"))
    return net.finish(net.gemm(made, (32, 32), transposed=kind == "gemm transposed", name="last"))


@pytest.mark.parametrize("kind", ["gemm", "gemm transposed", "matmul"])
def test_products_take_the_shift_into_their_bias(kind: str) -> None:
    model = product(kind)
    before, found = centred(model)
    assert len(found.shifts) == 1
    assert not found.maps
    same(model, before, found.model)


def test_a_transposed_convolution_writes_and_several_layers_read() -> None:
    net = Net()
    made = net.relu(net.conv_transpose(net.input(shape=("N", 16, 4, 4)), (16, 16)))
    left, right = net.conv(made, (16, 16), bias=True), net.conv(made, (16, 16), kernel=1)
    model = net.finish(net.add("Mul", [left, right]))
    before, found = centred(model)
    assert len(found.shifts) == len(found.maps) == 1
    same(model, before, found.model)


def test_a_chain_of_centred_tensors_and_an_output_behind_a_map() -> None:
    net = Net()
    x = net.input(shape=("N", 16, 8, 8))
    for _ in range(3):
        x = net.relu(net.conv(x, (16, 16), bias=True))
    model = net.finish(net.conv(x, (16, 16), name="last"))
    before, found = centred(model)
    assert len(found.shifts) == len(found.maps) == 3
    assert [v.name for v in found.model.graph.outputs] == [v.name for v in before.graph.outputs]
    same(model, before, found.model)
    assert set(place(found.model).tensors) == set(place(before).tensors)


def residual_read(net: Net, x: str) -> str:
    made = net.relu(net.conv(x, (16, 16)))
    return net.add("Add", [net.conv(made, (16, 16)), made])


def read_by_another(net: Net, x: str) -> str:
    made = net.relu(net.conv(x, (16, 16)))
    return net.add("Mul", [net.conv(made, (16, 16)), net.add("Sigmoid", [made])])


def without_relu(net: Net, x: str) -> str:
    return net.conv(net.conv(x, (16, 16)), (16, 16))


def summed(net: Net, x: str) -> str:
    made = net.add("Add", [net.conv(x, (16, 16)), net.conv(x, (16, 16))])
    return net.conv(net.relu(made), (16, 16))


def clipped_above_zero(net: Net, x: str) -> str:
    low = net.weight("low", np.array(-1, np.float32))
    return net.conv(net.add("Clip", [net.conv(x, (16, 16)), low]), (16, 16))


def read_before_the_relu(net: Net, x: str) -> str:
    made = net.conv(x, (16, 16))
    return net.add("Mul", [net.conv(net.relu(made), (16, 16)), made])


UNTOUCHED = (
    residual_read,
    read_by_another,
    without_relu,
    summed,
    clipped_above_zero,
    read_before_the_relu,
)


@pytest.mark.parametrize("build", UNTOUCHED)
def test_leaves_what_it_cannot_center(build: Callable[[Net, str], str]) -> None:
    net = Net()
    model = net.finish(build(net, net.input()))
    before, found = centred(model)
    assert found.model is before
    assert not found.shifts


def test_an_image_of_open_size_is_left_where_it_is_padded() -> None:
    for kernel, count in ((3, 0), (1, 1)):
        net = Net()
        made = net.relu(net.conv(net.input(shape=("N", 16, "H", "W")), (16, 16)))
        _, found = centred(net.finish(net.conv(made, (16, 16), kernel=kernel)))
        assert len(found.shifts) == count


def test_a_tensor_that_is_zero_stays() -> None:
    net = Net()
    made = net.relu(net.conv(net.input(), (16, 16)))
    _, found = centred(net.finish(net.conv(made, (16, 16))), **{made: 0.0})
    assert not found.shifts
