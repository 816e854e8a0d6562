"""What every repair that scales channels promises: the FP32 function stays, INT8 works again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantlab.graph.equalize import equalize
from quantlab.graph.outliers import outliers
from quantlab.graph.pins import MARK, pin
from quantlab.graph.placement import place
from quantlab.graph.rescale import Rescaled
from quantlab.graph.smooth import smooth
from tests.graph.cases import prepared
from tests.graph.channels import (
    CHANNELS,
    COLLAPSED,
    HELD,
    OUTLYING,
    UNEQUAL,
    activated,
    block,
    gated,
    given,
    int8_error,
    normalized,
    output,
    ranges,
)

Array = NDArray[np.generic]
Build = Callable[[NDArray[np.float64]], onnx.ModelProto]


class Repair(Protocol):
    """A repair that scales channels."""

    def __call__(
        self,
        model: ir.Model,
        amax: Mapping[str, NDArray[np.float64]],
        *,
        quantized: tuple[str, ...] | None = None,
    ) -> Rescaled:
        """Return the repaired model."""
        ...


CASES: dict[str, tuple[Repair, Build, NDArray[np.float64]]] = {
    "equalize": (equalize, block, UNEQUAL),
    "smooth behind a normalization": (smooth, normalized, OUTLYING),
    "smooth behind GELU": (smooth, activated, OUTLYING),
    "outliers": (outliers, gated, OUTLYING),
}
"""Repairs, the networks that need them, and the factors that make them need it."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A network that collapses, and what a repair made of it."""

    kind: str
    repair: Repair
    model: ir.Model
    batch: Mapping[str, Array]
    amax: Mapping[str, NDArray[np.float64]]
    made: Rescaled


@pytest.fixture(scope="module", params=CASES)
def patient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    folder = tmp_path_factory.mktemp("patient")
    repair, build, factors = CASES[request.param]
    batch = given(build(factors))
    model = prepared(build(factors), folder)
    amax = ranges(model, batch, folder)
    made = repair(model, amax, quantized=place(model).tensors)
    return Patient(request.param.split()[0], repair, model, batch, amax, made)


def test_a_network_that_collapses_works_again(patient: Patient, tmp_path: Path) -> None:
    assert int8_error(patient.model, patient.batch, tmp_path) > COLLAPSED
    assert int8_error(patient.made.model, patient.batch, tmp_path) < HELD


def test_the_fp32_function_stays(patient: Patient, tmp_path: Path) -> None:
    expected = output(patient.model, patient.batch, tmp_path)
    # A weight is rounded once or twice, and sums of products of both signs lose some digits.
    tolerance = 1e-5 * float(np.abs(expected).max())
    made = output(patient.made.model, patient.batch, tmp_path)
    np.testing.assert_allclose(made, expected, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_a_network_with_like_channels_is_left_untouched(name: str, tmp_path: Path) -> None:
    repair, build, _ = CASES[name]
    ordinary = build(np.ones(CHANNELS))
    model = prepared(ordinary, tmp_path)
    made = repair(model, ranges(model, given(ordinary), tmp_path))
    assert made.model is model
    assert made.changes == ()


def test_what_was_done_is_told(patient: Patient) -> None:
    graph = patient.made.model.graph
    assert patient.made.changes
    for change in patient.made.changes:
        assert change.kind == patient.kind
        assert 0 < change.factors_low < change.factors_high
        assert "dB less noise" in change.note
        assert {node.name for node in graph}.issuperset(change.nodes)
        assert {v.name for node in graph for v in node.outputs}.issuperset(change.tensors)


def test_repaired_channels_need_no_repair_and_their_ranges_are_known(
    patient: Patient, tmp_path: Path
) -> None:
    seen = ranges(patient.made.model, patient.batch, tmp_path)
    for tensor, amax in seen.items():
        np.testing.assert_allclose(patient.made.amax[tensor], amax, rtol=1e-4)
    assert patient.repair(patient.made.model, seen).model is patient.made.model


def test_names_and_pins_survive(patient: Patient) -> None:
    made = patient.repair(pin(patient.model, {"*": "fp32"}), patient.amax)
    known = {node.name: node for node in made.model.graph}
    for node in patient.model.graph:
        assert known[node.name].meta[MARK] == "fp32"
        assert [v.name for v in known[node.name].outputs] == [v.name for v in node.outputs]


def test_the_argument_stays_as_it_is(patient: Patient) -> None:
    before = ir.to_proto(patient.model).SerializeToString()
    patient.repair(patient.model, patient.amax)
    assert ir.to_proto(patient.model).SerializeToString() == before


def test_float_places_and_tensors_without_ranges_are_left_alone(patient: Patient) -> None:
    assert patient.repair(patient.model, patient.amax, quantized=()).model is patient.model
    assert patient.repair(patient.model, {}).model is patient.model
