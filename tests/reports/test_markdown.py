"""report.md: the sample's golden file, and no name that becomes markup."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.records import Report
from quantlab.reports import SECTIONS, compose, markdown
from tests.reports.sample import huge, sample
from tests.reports.sample_gpu import gpu_sample
from tests.reports.strange import TEXTS, reports

GOLDEN = {"sample": sample, "sample_gpu": gpu_sample}


def unescaped(line: str, character: str) -> int:
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(character)}", line))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    report = GOLDEN[name]()
    text = Path(__file__).with_name(f"{name}.md").read_text(encoding="utf-8")
    assert markdown.render(report, compose(report)) == text, (
        f"if the change is meant: python -m tests.reports.{name} > tests/reports/{name}.md"
    )


@settings(max_examples=8)
@given(reports())
def test_every_table_row_has_the_cells_of_its_heading(report: Report) -> None:
    width = 0
    for line in markdown.render(report, compose(report)).split("\n"):
        if not line.startswith("| "):
            width = 0
            continue
        pipes = len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line)))
        assert pipes == (width or pipes)
        width = pipes


@given(TEXTS)
def test_escape_leaves_no_markup(text: str) -> None:
    shown = markdown.escape(text)
    assert "\n" not in shown
    for character in "<>`*_[|":
        assert unescaped(shown, character) == 0


@given(st.text(alphabet="`a |\n<", max_size=12))
def test_code_spans_close_where_they_should(text: str) -> None:
    span = markdown.code(text)
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[fence.end() : -fence.end()]
    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inner)
    assert unescaped(inner, "|") == 0


def test_long_tables_are_cut_with_a_pointer() -> None:
    section = SECTIONS["tensors"](replace(huge(300), histograms=()))
    assert section is not None
    text = markdown.render(sample(), {"tensors": section})
    assert "and 260 more in tables/tensors.csv" in text
