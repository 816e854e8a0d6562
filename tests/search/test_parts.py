"""The prior's orders, FP16 in FP32, and what of a search is built."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantlab.engines.ort_session import run
from quantlab.findings import Plan, Searched, Sensitivity
from quantlab.graph import model as graph
from quantlab.graph.pins import pin
from quantlab.graph.prepare import prepare
from quantlab.records import Precision
from quantlab.search.base import Latency, Unit
from quantlab.search.chosen import engine, layers
from quantlab.search.half import half
from quantlab.search.overflow import beyond_fp16
from quantlab.search.prior import prior
from quantlab.simulate import session
from tests.models import Net, write


def row(name: str, db: float | None) -> Sensitivity:
    return Sensitivity(name, "layer", name, "Conv", None, db, None)


def latency(ms: float, **told: float) -> Latency:
    return Latency(ms, ms, ms, "measured", told)


def test_errors_and_times_become_orders() -> None:
    units = [Unit("a", 10), Unit("b", 10), Unit("c", 10), Unit("d", 10)]
    rows = [row("a", 30), row("b", 20), row("c", 25), row("d", None)]
    told = latency(10, a=1.0, b=9.0, c=1.0, d=1.0), latency(4, a=0.9, b=1.0, c=1.5, d=0.5)
    found = prior(units, rows, *told)
    assert found.by_error() == ("b", "c", "a", "d")
    assert found.by_cost() == ("c", "a", "b", "d")  # c is faster in floating point
    assert found.idle() == ("c",)
    assert found.ms({"a", "b"}) == pytest.approx(4 + 0.1 + 8)


def test_what_no_engine_tells_is_shared_out_by_macs() -> None:
    units = [Unit("a", 30), Unit("b", 10), Unit("add", 0)]
    found = prior(units, [], latency(8), latency(4))
    assert found.saved == {"a": 3.0, "b": 1.0, "add": 1.0}
    assert found.ms({"a", "b"}) == 8


def test_only_layers_with_a_sensitivity_are_searched() -> None:
    rows = [row("b", 20), replace(row("a", 20), kind="activation")]
    found = prior([Unit("a", 1), Unit("b", 1)], rows, latency(2), latency(1))
    assert list(found.errors) == ["b"]


def doubling(path: Path) -> ir.Model:
    """Multiply by 1e4 and by 1e-4, with a Relu after each."""
    net = Net()
    x = net.add(
        "Mul", [net.input(shape=("N", 4)), net.weight("up", np.array(1e4, np.float32))], name="up"
    )
    x = net.add("Mul", [net.relu(x), net.weight("down", np.array(1e-4, np.float32))], name="down")
    return prepare(graph.load(write(net.finish(net.relu(x)), path))).model


def outputs(model: ir.Model, x: list[float]) -> NDArray[np.float32]:
    inputs = {"x": np.array([x], np.float32)}
    name = str(model.graph.outputs[0].name)
    found: NDArray[np.float32] = run(session(model), [name], inputs)[name][0]
    return found


def test_fp16_overflows_but_where_nodes_stay_in_fp32(tmp_path: Path) -> None:
    model = doubling(tmp_path / "m.onnx")
    x = [1.0, 5.0, 20.0, 1 / 3]
    assert np.isinf(outputs(half(model), x)).tolist() == [False, False, True, False]
    wide = beyond_fp16(model, lambda: iter([{"x": np.array([x], np.float32)}]))
    assert wide == ("up", "relu1", "down")
    pinned = half(pin(model, dict.fromkeys(wide, "fp32")))
    assert outputs(pinned, x) == pytest.approx(np.array(x), rel=2e-3)
    assert outputs(pinned, x)[3] != outputs(model, x)[3]  # still rounded


def test_nothing_is_beyond_fp16_in_an_ordinary_model(tmp_path: Path) -> None:
    model = doubling(tmp_path / "m.onnx")
    assert beyond_fp16(model, lambda: iter([{"x": np.ones((1, 4), np.float32)}])) == ()


def plan(label: str, ms: float, *, meets: bool, front: bool = False, floats: str = "") -> Plan:
    kept = ((floats, "fp32"),) if floats else ()
    share = 0.9 if label.startswith("int8") else 0.0
    precision = cast(Precision, label.split(maxsplit=1)[0])
    return Plan(label, precision, kept, share, 0.1, ms, ms, ms, "measured", meets, front)


def searched(chosen: str, *plans: Plan) -> Searched:
    ordered = tuple(sorted(plans, key=lambda plan: plan.latency_ms))
    return Searched("top1_drop", 0.5, 10, 1, len(plans), 1.0, ordered, chosen, met=True, reason="")


def test_the_recommended_plan_is_built() -> None:
    found = searched(
        "int8 but 1",
        plan("int8", 1, meets=True),
        plan("int8 but 1", 2, meets=True, floats="conv[0]"),
        plan("fp32", 9, meets=True),
    )
    assert layers(found, "int8") == {"conv[[]0]": "fp32"}
    assert layers(found, "fp16") == {}
    assert engine(found, "fp16") is None


def test_beside_a_recommended_float_engine_the_best_int8_is_built() -> None:
    plans = [
        plan("int8", 4, meets=False, front=True),
        plan("int8 but 1", 5, meets=False, front=True, floats="a"),
        plan("int8 but 2", 6, meets=False, floats="b"),
        plan("fp16", 3, meets=True),
    ]
    found = searched("fp16", *plans)
    assert layers(found, "int8") == {"a": "fp32"}
    met = searched("fp16", *plans, plan("int8 but 3", 7, meets=True, floats="c"))
    assert layers(met, "int8") == {"c": "fp32"}


def test_fp16_is_built_with_what_it_needs_in_fp32() -> None:
    found = searched(
        "int8",
        plan("int8", 1, meets=True),
        plan("fp16", 2, meets=False),
        plan("fp16 but 1", 3, meets=True, floats="a"),
    )
    assert layers(found, "fp16") == {"a": "fp32"}
