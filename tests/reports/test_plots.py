"""Charts: the same bytes for the same data, colours by theme, and text that stays text."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings

from quantlab.records import ClassReport, HistogramReport
from quantlab.reports import bars, plots, tensorplots
from quantlab.reports.blocks import Chart
from quantlab.reports.tables import class_intervals
from tests.reports.sample import HOSTILE, sample
from tests.reports.strange import TEXTS

ENGINES = sample().engines
NOTHING = [replace(engine, performance=(), accuracy={}) for engine in ENGINES]


def texts(chart: Chart) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)


@pytest.mark.parametrize("draw", [plots.latency, plots.throughput, plots.speedup, plots.sizes])
def test_engine_charts(draw: type) -> None:
    chart = draw(ENGINES)
    assert chart == draw(ENGINES)
    assert "INT8" in chart.alt
    assert set(re.findall(r"var\((--\w+)\)", chart.svg)) >= {"--fp32", "--fp16", "--int8"} - (
        {"--fp32"} if draw is plots.speedup else set()
    )
    assert not re.search(r"#[0-9a-f]{6}\b", chart.svg), "a colour that no theme sets"
    assert "font-family" not in chart.svg


@pytest.mark.parametrize("draw", [plots.latency, plots.throughput, plots.speedup])
def test_nothing_measured_nothing_drawn(draw: type) -> None:
    assert draw(NOTHING) is None


def test_no_engines_no_sizes() -> None:
    assert plots.sizes([]) is None


def test_latency_names_its_decades() -> None:
    chart = plots.latency(ENGINES)
    assert chart is not None
    assert {"5", "10", "20", "50", "100", "200", "500", "batch 8"} <= set(texts(chart))


def test_accuracy_and_change() -> None:
    value, change = plots.accuracy(ENGINES, "top1"), plots.change(ENGINES, "top1")
    assert value is not None
    assert change is not None
    assert {"93.21", "93.15", "FP32", "INT8"} <= set(texts(value))
    assert "\N{MINUS SIGN}0.06" in texts(change)
    assert "FP32" not in texts(change)
    assert change.title == "Change of top1 from FP32, pp"
    assert plots.change(ENGINES, "sqnr") is None
    assert plots.accuracy(NOTHING, "top1") is None


def test_ranking_is_by_noise_worst_first() -> None:
    chart = tensorplots.ranking(sample().tensors)
    assert chart is not None
    numbers = [float(text) for text in texts(chart) if re.fullmatch(r"\d+\.\d", text)]
    assert numbers == sorted(numbers)
    assert len(numbers) == bars.RANKED
    assert tensorplots.ranking([replace(sample().tensors[0], sqnr_db=None)]) is None


@settings(max_examples=15)
@given(TEXTS)
def test_a_name_is_text_whatever_it_is(name: str) -> None:
    chart = tensorplots.ranking([replace(sample().tensors[0], name=name)])
    assert chart is not None
    assert chart.svg.count("<") == chart.svg.count(">")
    assert "<script" not in chart.svg
    assert "<img" not in chart.svg


def test_labels_are_escaped_and_not_mathematics() -> None:
    chart = tensorplots.ranking([replace(sample().tensors[0], name=f"$x_1$ {HOSTILE}")])
    assert chart is not None
    assert "$x_1$ &lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in chart.svg


def test_histogram_marks_what_is_clipped() -> None:
    whole = HistogramReport("t", 8.0, (5, 4, 3, 0, 0, 0, 1, 0), 8.0)
    kept = tensorplots.histogram(whole, 0, "note")
    clipped = tensorplots.histogram(replace(whole, threshold=2.0), 0, "note")
    assert kept is not None
    assert clipped is not None
    assert "fill: var(--bad)" not in kept.svg
    assert "fill: var(--bad)" in clipped.svg
    assert "up to 7.00, threshold 2.00; note" in clipped.alt
    assert clipped.code


@pytest.mark.parametrize("found", [((0, 0), 1.0), ((), 1.0), ((1, 2), 0.0)])
def test_a_histogram_of_nothing_is_not_drawn(found: tuple[tuple[int, ...], float]) -> None:
    counts, upper = found
    assert tensorplots.histogram(HistogramReport("t", upper, counts, 1.0), 0, "") is None


def test_classes_show_what_is_known() -> None:
    rows = [ClassReport(0, "a", 10, {"int8": 50.0}), ClassReport(1, "b", 0, {})]
    chart = tensorplots.classes([(row, class_intervals(row)) for row in rows])
    assert chart is not None
    assert "var(--fp32)" not in chart.svg
    assert tensorplots.classes([]) is None


def test_charts_do_not_share_ids() -> None:
    drawn = [tensorplots.histogram(found, i, "") for i, found in enumerate(sample().histograms)]
    ids = [set(re.findall(r'id="([^"]*)"', chart.svg)) for chart in drawn if chart]
    assert len(ids) == 12
    assert sum(map(len, ids)) == len(set().union(*ids))
