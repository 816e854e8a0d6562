"""What stands around the errors: the words, the file, and how a model is cut."""

import csv
import io
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from quantlab import saved
from quantlab.analyze import write_csv
from quantlab.analyze.segments import cut
from quantlab.analyze.shapes import shape_of, spread
from quantlab.analyze.words import Evidence, findings
from quantlab.cli_analyze import show
from quantlab.findings import CHOOSE, Analysis, Finding, Sensitivity
from quantlab.graph.prepare import prepare
from quantlab.histogram import from_array
from quantlab.qparams import symmetric, unsigned
from quantlab.records import TensorThreshold
from tests.analyze.case import Case, case, perceptron, residual, transformer

ROWS = (
    Sensitivity("conv", "layer", "conv", "Conv", 30.25, 12.5, 31.0, 0.5),
    Sensitivity('a "tensor", odd', "activation", "conv", "Conv", None, None, 20.0),
)
ANALYSIS = Analysis(64, 1.5, 11.0, "top1", "%", ROWS, (Finding("conv", "It hurts", "bias"),))


def threshold(name: str, value: float) -> TensorThreshold:
    return TensorThreshold(name, value, value, "minmax", -value)


def test_rows_come_back_from_csv_and_json(tmp_path: Path) -> None:
    with write_csv(tmp_path / "analysis.csv", ANALYSIS).open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["name"] for row in found] == [row.name for row in ROWS]
    assert (found[0]["alone_db"], found[0]["drop"], found[1]["alone_db"]) == ("12.5", "0.5", "")
    path = saved.dump(tmp_path / "analysis.json", ANALYSIS, Analysis)
    assert saved.load(path, Analysis) == ANALYSIS


def test_the_terminal_shows_the_worst_and_the_words() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    show(ANALYSIS, console, worst=1)
    text = console.export_text()
    assert "It hurts" in text
    assert "12.5" in text
    assert "11.0 dB" in text


def test_a_histogram_is_told_as_numbers() -> None:
    values = np.concatenate([np.zeros(500), np.linspace(0, 1, 499), [10.0]]).astype(np.float32)
    shape = shape_of(from_array("t", values), threshold("t", 10.0), symmetric(10.0))
    assert shape.tail == pytest.approx(10, rel=0.05)
    assert shape.steps == pytest.approx(127 * 0.1, abs=1)
    assert shape.one_sided
    assert shape.zeros == pytest.approx(0.501, abs=0.001)
    assert shape.clipped == 0
    clipped = shape_of(from_array("t", values), threshold("t", 0.5), symmetric(0.5))
    assert clipped.clipped == pytest.approx(0.25, abs=0.01)
    finer = shape_of(from_array("t", values), threshold("t", 10.0), unsigned(10.0, 0.0))
    assert (shape.levels, finer.levels) == (254, 255)
    assert finer.steps == pytest.approx(255 * 0.1, abs=1)


def test_spread_counts_the_channels_that_stand_out() -> None:
    channels = np.array([1.0, 1, 1, 2, 40, 0])
    assert spread(channels, 8) == (40.0, 1)
    assert spread(np.zeros(3), 8) == (1.0, 0)
    assert spread(None, 8) == (1.0, 0)


def said(of: Case, layer: str, worst: str, channels: dict[str, np.ndarray]) -> Finding:
    """Return the finding where ``worst`` is what costs most of a layer."""
    kind = "weight" if worst.endswith("weight") else "activation"
    op = next(node.op_type for node in of.draft.model.graph if node.name == layer)
    rows = (
        Sensitivity(layer, "layer", layer, op, 10.0, 10.0, 30.0),
        Sensitivity(worst, kind, layer, op, 10.0, 10.5, 30.0),  # type: ignore[arg-type]
    )
    return findings(of.draft, rows, Evidence(channels, {layer: 0.0}), 9.0)[0]


def test_the_repair_follows_from_what_is_seen() -> None:
    of, sequence = case(residual()), case(transformer())
    unequal = np.geomspace(1, 200, 16)
    assert said(of, "second", "relu3_out", {"relu3_out": unequal}).repair == "equalize"
    assert said(sequence, "up", "norm_out", {"norm_out": unequal}).repair == "smooth"
    products = case(perceptron())
    assert said(products, "second", "relu1_out", {"relu1_out": unequal}).repair == "equalize"
    even = said(of, "second", "relu3_out", {"relu3_out": np.ones(16)})
    assert even.repair == ""
    assert "quantization: layers" in even.text
    assert said(of, "second", "second.weight", {}).repair == "adaround"


def test_a_tail_asks_for_another_calibrator() -> None:
    of = case(residual())
    values = np.concatenate([np.linspace(0, 1, 10_000), [30.0]]).astype(np.float32)
    histograms = {**of.draft.histograms, "relu3_out": from_array("relu3_out", values)}
    thresholds = {**of.draft.thresholds, "relu3_out": threshold("relu3_out", 30.0)}
    draft = type(of.draft)(
        of.draft.model, of.draft.policy, of.draft.placement, histograms, thresholds
    )
    found = said(Case(draft, of.inputs), "second", "relu3_out", {"relu3_out": np.ones(16)})
    assert found.repair == CHOOSE
    assert "'calibration.method: auto'" in found.text
    assert "30 times the 99.9th percentile" in found.text


@pytest.mark.parametrize("most", [1, 2, 4, 100])
def test_segments_hold_every_node_once_and_read_what_came_before(most: int) -> None:
    model = prepare(ir.from_proto(residual())).model
    layers = {str(node.name) for node in model.graph if node.op_type == "Conv"}
    segments = cut(model, layers, most=most)
    names = [name for segment in segments for name in segment.nodes]
    assert sorted(names) == sorted(str(node.name) for node in model.graph)
    assert len(segments) <= most
    known = {str(value.name) for value in model.graph.inputs}
    for segment in segments:
        assert set(segment.inputs) <= known
        known = (known | set(segment.outputs)) & segment.live
    assert known == {str(value.name) for value in model.graph.outputs}


def test_no_cut_falls_behind_a_node_that_must_stay_with_its_readers() -> None:
    model = prepare(ir.from_proto(transformer())).model
    segments = cut(model, {"up", "down"}, most=100, whole={"up"})
    reader = next(node for node in model.graph if node.name == "up").outputs[0].consumers()[0]
    assert any({"up", reader.name} <= segment.nodes for segment in segments)
