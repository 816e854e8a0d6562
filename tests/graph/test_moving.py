"""What moves elements is told from what computes, in each mode of an operator."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from quantlab.graph.moving import COPIES, VIEWS, ends, moved, origins
from tests.graph.cases import CASES, prepared
from tests.models import Net


def integers(net: Net, *values: int) -> str:
    return net.weight(f"integers{len(net.weights)}", np.array(values, np.int64))


def node(net: Net, output: str, folder: Path) -> ir.Node:
    model = prepared(net.finish(net.add("Softmax", [output])), folder)
    return next(n for n in model.graph if n.name == "op")


@pytest.mark.parametrize(
    ("mode", "value", "inputs"),
    [("constant", None, (0,)), ("constant", 0, (0,)), ("constant", 1, ()), ("edge", 1, (0,))],
)
def test_a_pad_moves_unless_it_writes_a_number(
    mode: str, value: int | None, inputs: tuple[int, ...], tmp_path: Path
) -> None:
    net = Net()
    given = [net.input(), integers(net, 0, 0, 1, 1, 0, 0, 1, 1)]
    if value is not None:
        given.append(net.weight("value", np.array(value, np.float32)))
    made = net.add("Pad", given, name="op", attributes={"mode": mode})
    assert moved(node(net, made, tmp_path)) == inputs


@pytest.mark.parametrize(("mode", "inputs"), [("nearest", (0,)), ("linear", ())])
def test_a_resize_moves_the_nearest_elements(
    mode: str, inputs: tuple[int, ...], tmp_path: Path
) -> None:
    net = Net()
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    made = net.add("Resize", [net.input(), "", scales], name="op", attributes={"mode": mode})
    assert moved(node(net, made, tmp_path)) == inputs


def test_a_look_up_of_constants_moves_none(tmp_path: Path) -> None:
    net = Net()
    made = net.add("Gather", [net.random("table", (9, 4)), net.input("i", ("N",), 7)], name="op")
    assert moved(node(net, made, tmp_path)) == ()


def test_views_are_no_copies() -> None:
    assert not VIEWS & COPIES


def test_the_way_leads_through_moves_to_both_ends(tmp_path: Path) -> None:
    model = prepared(CASES["integer-copy"].build(), tmp_path)
    by_name = {str(n.name): n for n in model.graph}
    reached = {(str(n.name), i) for n, i in ends(by_name["split"]) if n is not None}
    assert reached == {("left", 0), ("after", 0)}
    assert {v.name for v in origins(by_name["both"])} == {"left_out", "relu1_out"}


def test_an_output_is_read_by_the_model_s_user(tmp_path: Path) -> None:
    model = prepared(CASES["moves-floats"].build(), tmp_path)
    last = list(model.graph)[-1]
    assert list(ends(last)) == [(None, 0)]
