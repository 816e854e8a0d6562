"""Channel sets are found whole or not at all, and scaling them changes nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.graph.channel_sets import ChannelSet, axes, channel_sets
from quantlab.graph.editor import Editor
from quantlab.graph.passes import copy
from quantlab.graph.rescale import rescale
from tests.graph.cases import CASES, prepared
from tests.graph.channels import output
from tests.models import BLOCKS, Net, feeds, stacked

Block = Callable[[Net, str], str]


def _conv(net: Net, x: str) -> str:
    return net.conv(x, (16, 16), bias=True)


def _wrapped(op: str, **attributes: object) -> Block:
    def block(net: Net, x: str) -> str:
        return _conv(net, net.add(op, [_conv(net, x)], attributes=attributes))

    return block


def _prelu(net: Net, x: str) -> str:
    slope = net.random(f"slope{len(net.nodes)}", (16, 1, 1))
    return _conv(net, net.add("PRelu", [_conv(net, x), slope]))


def _grouped(net: Net, x: str) -> str:
    x = net.conv_transpose(net.conv(x, (16, 16), groups=4, bias=True), (16, 32), groups=4)
    return _conv(net, net.pool(net.conv(x, (32, 16), groups=8)))


def _padded(net: Net, x: str) -> str:
    pads = net.weight(f"pads{len(net.nodes)}", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    return net.pool(_conv(net, net.add("Pad", [_conv(net, x), pads])), "AveragePool")


def _gated(net: Net, x: str) -> str:
    x = net.relu(_conv(net, x))
    gate = net.conv(net.add("GlobalAveragePool", [x]), (16, 16), kernel=1, bias=True)
    return _conv(net, net.add("Mul", [net.add("Sigmoid", [gate]), x]))


def _normalized(net: Net, x: str) -> str:
    x = net.add("Transpose", [x], attributes={"perm": [0, 2, 3, 1]})
    name = f"norm{len(net.nodes)}"
    x = net.add(
        "LayerNormalization",
        [x, net.random(f"{name}.s", (16,)), net.random(f"{name}.b", (16,))],
        name=name,
    )
    x = net.relu(net.matmul(x, (16, 16)))
    x = net.add("Mul", [x, net.random(f"{name}.gamma", (16,))])
    x = net.add("Add", [net.random(f"{name}.beta", (16,)), x])
    return _conv(net, net.add("Transpose", [x], attributes={"perm": [0, 3, 1, 2]}))


OWN: dict[str, Block] = {
    "leaky": _wrapped("LeakyRelu", alpha=0.2),
    "prelu": _prelu,
    "grouped": _grouped,
    "padded": _padded,
    "gated": _gated,
    "normalized": _normalized,
}
"""Pieces beside tests.models.BLOCKS; each takes and gives 16 channels."""


def pieces(names: list[str]) -> onnx.ModelProto:
    """Return a network of OWN between a stem and a classifier."""
    net = Net()
    x = net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem")
    for name in names:
        x = OWN[name](net, x)
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    return net.finish(net.gemm(net.relu(net.gemm(x, (16, 32))), (32, 16), transposed=False))


def found(model: onnx.ModelProto, folder: Path) -> list[ChannelSet]:
    """Return the sets that have writers."""
    return [one for one in channel_sets(prepared(model, folder), None) if one.writers]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.lists(st.sampled_from(list(BLOCKS)), min_size=1, max_size=3).map(stacked),
        st.lists(st.sampled_from(list(OWN)), min_size=1, max_size=2).map(pieces),
    ),
    st.integers(0, 2**32 - 1),
)
def test_any_factors_on_every_set_change_nothing(
    tmp_path: Path, proto: onnx.ModelProto, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model, batch = prepared(proto, tmp_path), feeds(proto)
    editor = Editor(copy(model))
    sets = channel_sets(model, None)
    for one in sets:
        rescale(editor, one, 2.0 ** rng.uniform(-6, 6, one.channels))
    assert any(one.writers for one in sets)
    expected = output(model, batch, tmp_path)
    # Rounding grows with the largest product, and every layer adds its own.
    tolerance = 1e-4 * float(np.abs(expected).max())
    np.testing.assert_allclose(output(editor.model, batch, tmp_path), expected, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "sets"), {"grouped": 6, "padded": 4, "gated": 4, "leaky": 4}.items()
)
def test_each_piece_is_crossed(name: str, sets: int, tmp_path: Path) -> None:
    assert len(found(pieces([name]), tmp_path)) == sets


def test_an_axis_that_moves_is_followed(tmp_path: Path) -> None:
    sets = found(pieces(["normalized"]), tmp_path)
    moved = [one for one in sets if set(one.tensors.values()) == {1, 3}]
    assert len(moved) == 1
    assert [one.normalized for one in sets].count(True) == 1


def test_a_residual_stream_is_one_set_with_all_its_writers_and_readers(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="stem")
    for i in range(2):
        y = net.conv(net.relu(net.conv(x, (16, 16), name=f"a{i}")), (16, 16), name=f"b{i}")
        x = net.relu(net.add("Add", [x, y], name=f"add{i}"))
    x = net.conv(net.conv(x, (16, 16), groups=16, name="deep"), (16, 16), name="last")
    sets = {next(iter(one.tensors)): one for one in found(net.finish(x), tmp_path)}
    stream = sets["stem_out"]
    assert {end.node for end in stream.writers} == {"stem", "b0", "b1"}
    assert {end.node for end in stream.readers} == {"a0", "a1", "deep"}
    assert {end.node for end in sets["deep_out"].writers} == {"deep"}


def _cut(net: Net, x: str, op: str) -> onnx.ModelProto:
    return net.finish(net.conv(net.add(op, [x], name="cut"), (16, 16), name="last"))


@pytest.mark.parametrize("op", ["Sigmoid", "HardSwish", "Softmax", "Exp"])
def test_what_takes_no_factor_leaves_only_a_product_in_front_of_readers(
    op: str, tmp_path: Path
) -> None:
    net = Net()
    model = prepared(_cut(net, net.conv(net.input(), (16, 16), name="first"), op), tmp_path)
    assert [one.writers for one in channel_sets(model, None)] == [(), ()]
    assert list(axes(model)) == ["x", "cut_out"]


def test_a_gate_is_crossed_from_a_head_that_takes_no_factor(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="first")
    x = net.add("Mul", [x, net.add("Sigmoid", [x])], name="head")
    squeezed = net.add("GlobalAveragePool", [x], name="pool")
    gate = net.add("Sigmoid", [net.conv(squeezed, (16, 16), kernel=1, name="gate")])
    x = net.add("Mul", [x, gate], name="gated")
    model = prepared(net.finish(net.conv(x, (16, 16), name="last")), tmp_path)
    whole = next(one for one in channel_sets(model, None) if "head_out" in one.tensors)
    assert set(whole.tensors) == {"head_out", "pool_out", "gated_out"}
    assert whole.behind == ("pool", "gated")
    assert {end.node for end in whole.readers} == {"gate", "last"}


def test_a_product_goes_behind_what_only_passes_factors_on(tmp_path: Path) -> None:
    net = Net()
    x = net.pool(net.relu(net.add("Exp", [net.conv(net.input(), (16, 16))])))
    model = prepared(net.finish(net.conv(x, (16, 16), name="last")), tmp_path)
    head = next(one for one in channel_sets(model, None) if one.behind == ("last",))
    assert list(head.tensors) == [x]


def test_a_spelled_out_normalization_is_a_writer(tmp_path: Path) -> None:
    model = prepared(CASES["normalization"].build(), tmp_path)
    products = [one for one in channel_sets(model, None) if one.writers]
    assert len(products) == 3
    assert [model.graph.node(one.writers[0].node).op_type for one in products] == [
        "LayerNormalization",
        "Mul",
        "Mul",
    ]


def test_a_graph_output_ends_a_set(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="first")
    y = net.conv(x, (16, 16), name="last")
    assert found(net.finish(x, y), tmp_path) == []


def test_a_sum_that_broadcasts_ends_a_set(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="first")
    one = net.conv("x", (16, 1), kernel=1, name="one")
    model = net.finish(net.conv(net.add("Add", [x, one]), (16, 16), name="last"))
    assert found(model, tmp_path) == []


def test_shared_weights_are_told_apart(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="first")
    x = net.relu(net.add("Conv", [x, "first.weight"], attributes={"pads": [1] * 4}))
    model = prepared(net.finish(net.conv(x, (16, 16))), tmp_path)
    editor, batch = Editor(copy(model)), {"x": np.ones((1, 16, 8, 8), np.float32)}
    expected = output(model, batch, tmp_path)
    for one in channel_sets(model, None):
        rescale(editor, one, np.exp2(np.arange(one.channels, dtype=np.float64)))
    np.testing.assert_array_equal(output(editor.model, batch, tmp_path), expected)
