"""Element-wise functions are found however they are spelled, and nothing else is."""

from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.graph.elementwise import LONGEST, function_of
from tests.graph.cases import prepared
from tests.models import Net
from tests.networks import gate, gelu, scalar, silu

UNARY = ("Relu", "Sigmoid", "Erf", "Tanh", "HardSwish")
BINARY = ("Add", "Mul", "Sub", "Div")


def value(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


@pytest.mark.parametrize(("function", "nodes"), [(silu, 2), (gelu, 5)])
def test_spelled_out_activations(function: object, nodes: int, tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="layer")
    y = (silu if function is silu else gelu)(net, x)
    current, seen = value(prepared(net.finish(net.conv(y, (16, 16))), tmp_path), y), 0
    while current.name != "layer_out":
        found = function_of(current)
        assert found is not None
        assert found.whole
        current, seen = found.source, seen + len(found.nodes)
    assert seen == nodes


def test_another_reader_keeps_the_source(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    y = silu(net, x)
    found = function_of(value(prepared(net.finish(y, net.add("Softmax", [x])), tmp_path), y))
    assert found is not None
    assert not found.whole


def test_a_gate_and_a_sum_of_two_tensors_are_no_functions(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    gated = gate(net, x, 16, 16)
    total = net.add("Add", [gated, net.add("Tanh", [net.conv(x, (16, 16))])])
    model = prepared(net.finish(total), tmp_path)
    assert function_of(value(model, gated)) is None
    assert function_of(value(model, total)) is None
    assert function_of(value(model, x)) is None, "a layer is no element-wise operator"


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(UNARY), st.integers(0, 5)),
        st.tuples(st.sampled_from(BINARY), st.integers(0, 5), st.integers(-1, 5)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_arithmetic_on_one_tensor_leads_back_to_it(
    tmp_path: Path, steps: list[tuple[str, ...]]
) -> None:
    """Each step reads earlier results; -1 stands for a constant."""
    net = Net()
    made = [net.add("Softmax", [net.input()], name="start")]
    for op, *read in steps:
        inputs = [scalar(net, 2.5) if int(i) < 0 else made[int(i) % len(made)] for i in read]
        made.append(net.add(op, inputs))
    model = prepared(net.finish(made[-1]), tmp_path)
    current, seen = model.graph.outputs[0], 0
    while current.name != "start_out":
        found = function_of(current)
        assert found is not None, current.name
        current, seen = found.source, seen + len(found.nodes)
    assert 1 <= seen <= len(steps) < LONGEST
