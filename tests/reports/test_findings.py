"""Diagnosis, repairs and search in the report: words, charts and tables say what was found."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.findings import Analysis, Finding, Plan, Searched, Sensitivity
from quantlab.reports import SECTIONS, pareto, tables
from quantlab.reports.blocks import Block, Callout, Charts, Details, Paragraph
from quantlab.reports.sections import diagnosis, repair, search
from tests.reports.sample import HOSTILE, sample
from tests.reports.sample_findings import PLANTED, analysis, repaired, searched
from tests.reports.strange import values

MINUS = "\N{MINUS SIGN}"


def blocks(name: str) -> tuple[Block, ...]:
    section = SECTIONS[name](sample())
    assert section is not None
    return section.blocks


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("name", ["diagnosis", "repair", "search"])
def test_what_was_not_asked_for_has_no_section(name: str) -> None:
    bare = replace(sample(), analysis=None, repair=None, search=None)
    assert SECTIONS[name](bare) is None


def test_the_worst_layer_is_told_in_words_first() -> None:
    told = next(block for block in blocks("diagnosis") if isinstance(block, Callout))
    assert told.points[0].startswith(f"{PLANTED}: alone it takes the network's output to 13.1 dB")
    assert told.points[0].endswith("tensor-wide scale. Likely to help: the repair equalize.")


def test_a_name_or_repair_that_the_finding_tells_is_not_repeated() -> None:
    finding = Finding("conv", "conv has outliers; try the repair smooth.", "smooth")
    many = replace(analysis(), findings=(finding,) * 12)
    section = SECTIONS["diagnosis"](replace(sample(), analysis=many))
    assert section is not None
    told = next(block for block in section.blocks if isinstance(block, Callout))
    assert told.points[0] == finding.text
    assert told.points[-1] == "and 2 more in report.json"


def test_bars_are_longest_for_the_worst_and_on_one_scale() -> None:
    (drawn,) = (block for block in blocks("diagnosis") if isinstance(block, Charts))
    assert len(drawn.items) == 3
    layers = drawn.items[0]
    numbers = [float(text.split()[0]) for text in texts(layers.svg) if text.endswith(" dB")]
    assert numbers == sorted(numbers)
    assert texts(layers.svg)[0] == PLANTED
    longest = [max(_bars(chart.svg)) for chart in drawn.items]
    assert longest[0] > longest[2] > 2 * longest[1]


def _bars(svg: str) -> list[float]:
    bar = r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+) [^>]*var\(--int8\)'
    corners = re.findall(bar, svg)
    return [float(right) - float(left) for left, right in corners]


def test_each_kind_has_its_table() -> None:
    layers = diagnosis.table(analysis(), "layer")
    assert [cell.text for cell in layers.rows[0]] == [
        PLANTED, "Conv", "13.1", "28.9", "17.1", "2.92",
    ]  # fmt: skip
    assert layers.columns[-1].name == "top1 lost alone, pp"
    weights = diagnosis.table(analysis(), "weight")
    assert [cell.text for cell in weights.rows[-1]] == [
        "fc.weight", "/fc/Gemm", "Gemm", "exact", "12.4", "52.0", "0.00",
    ]  # fmt: skip
    bare = replace(analysis(), metric="", unit="")
    assert len(diagnosis.table(bare, "activation").columns) == 6
    details = [block for block in blocks("diagnosis") if isinstance(block, Details)]
    assert [block.opened for block in details] == [False] * 3


def test_a_layer_without_error_has_no_bar() -> None:
    row = replace(analysis().rows[0], alone_db=None)
    assert diagnosis.chart(replace(analysis(), rows=(row,)), "layer") is None


@settings(max_examples=20)
@given(st.lists(values(Sensitivity), max_size=4))
def test_any_sensitivities_can_be_drawn(rows: list[Sensitivity]) -> None:
    found = Analysis(1, 1.0, None, HOSTILE, "", tuple(rows), ())
    for kind in diagnosis.KINDS:
        chart = diagnosis.chart(found, kind)
        assert chart is None or "nan" not in chart.svg
        assert len(diagnosis.table(found, kind).rows) == sum(row.kind == kind for row in rows)


def test_trials_are_told_in_their_order() -> None:
    judged, details = blocks("repair")
    assert isinstance(judged, Paragraph)
    assert "128 samples held back" in judged.text
    assert "9.8 dB before, 31.2 dB after. 6 trials, 3 kept, in 68.2 s" in judged.text
    assert isinstance(details, Details)
    rows = [[cell.text for cell in row] for row in repair.table(repaired()).rows]
    assert rows[2] == [
        "equalize", "9 pairs of layers", "12.4", "29.6", "✓ kept", "3.10 s", "\N{EN DASH}",
    ]  # fmt: skip
    none = SECTIONS["repair"](replace(sample(), repair=replace(repaired(), trials=())))
    assert none is not None
    assert len(none.blocks) == 1


def test_plans_are_told_with_what_they_keep() -> None:
    rows = {row[0].text: row for row in search.table(searched(), sample()).rows}
    assert str(rows["int8 but 2"][0]) == "int8 but 2 (recommended)"
    assert rows["int8 but 4"][0].note == "(off the front)"
    assert rows["int8 but 3"][-1].text.endswith("/layer4/conv3/Conv (fp16) and 1 more")
    assert rows["int8"][-1].text == "none"
    assert rows["fp16"][-1].text == "all layers"
    assert [cell.text for cell in rows["int8"][1:6]] == [
        "4.69", "✗ missed", "28.9", "measured", "100.0 %",
    ]  # fmt: skip
    kept = blocks("search")[-1]
    assert isinstance(kept, Details)
    assert kept.summary == "2 layers that the recommended plan keeps from INT8"
    frame = tables.searched(sample()).set_index("label")
    assert frame.loc["int8 but 1", "floats"] == f"{PLANTED} (fp16)"
    assert frame["chosen"].sum() == 1


def test_the_front_shows_plans_target_and_choice() -> None:
    chart = pareto.front(searched(), "pp", at_least=False)
    assert chart == pareto.front(searched(), "pp", at_least=False)
    assert chart is not None
    shown = texts(chart.svg)
    assert {"target 0.50 pp", "int8 but 2", "int8: 4.69 pp", "fp16", "fp32"} <= set(shown)
    assert "int8 but 2 0.35 pp in 30.4 ms, recommended, on the front" in chart.alt
    assert "int8 but 4 0.22 pp in 31.9 ms;" in chart.alt
    assert not re.search(r"#[0-9a-f]{6}\b", chart.svg), "a colour that no theme sets"


def test_better_is_up_for_a_value_and_for_a_drop() -> None:
    def height(svg: str, text: str) -> float:
        found = re.search(rf'<text[^>]*y="([\d.]+)"[^>]*>{text}<', svg)
        assert found is not None, text
        return float(found[1])

    better, worse = (
        Plan(name, "int8", (), 1.0, value, ms, ms, ms, "measured", meets=True, on_front=True)
        for name, value, ms in (("b", 0.999, 30.0), ("w", 0.99, 10.0))
    )
    found = replace(searched(), target="cosine", limit=0.995, plans=(worse, better), chosen="b")
    for at_least, names in ((True, "bw"), (False, "wb")):
        chart = pareto.front(found, "", at_least=at_least)
        assert chart is not None
        upper, lower = (height(chart.svg, name) for name in names)
        assert upper < lower


@settings(max_examples=20)
@given(values(Searched), st.booleans())
def test_any_search_can_be_drawn(found: Searched, at_least: bool) -> None:  # noqa: FBT001
    chart = pareto.front(found, "pp", at_least=at_least)
    assert (chart is None) == (not found.plans)
    if chart:
        assert "nan" not in re.sub(r"<text.*?</text>|aria-label=\"[^\"]*\"", "", chart.svg)
        assert chart.svg.count("<") == chart.svg.count(">")
