"""report.html: everything in it, nothing outside, and names stay text."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from quantlab.records import Report
from quantlab.reports import SECTIONS, compose, html
from tests.reports.sample import HOSTILE, huge, sample
from tests.reports.strange import reports

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects tags with their attributes and the text outside ``<style>``."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def rendered(report: Report) -> str:
    return html.render(report, compose(report))


def check_safe(page: Page) -> None:
    """Nothing runs and nothing is fetched."""
    for tag, attributes in page.tags:
        assert tag not in {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has a handler"
            assert name not in {"src", "srcset", "action", "data"}
            if name in {"href", "xlink:href"}:
                assert (value or "").startswith("#"), f"{tag} points outside: {value}"


@pytest.fixture(scope="module")
def source() -> str:
    return rendered(sample())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_the_sample_is_safe_and_small(page: Page, source: str) -> None:
    check_safe(page)
    assert len(source.encode()) < 1_000_000
    assert "http:" not in source
    assert "https:" not in source
    assert "url(#" in source
    assert source.count("url(") == source.count("url(#")


@settings(max_examples=8)
@given(reports())
def test_any_report_is_safe(report: Report) -> None:
    check_safe(Page(rendered(report)))


def test_hostile_names_are_shown_as_text(page: Page) -> None:
    assert HOSTILE in page.text
    assert "<b>boot</b>" in page.text


def test_every_chart_tells_what_it_shows(page: Page) -> None:
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == 3 + 3 + 1 + 1 + 12 + 1 + 3 + 1
    for chart in charts:
        assert chart["role"] == "img"
        assert len(chart["aria-label"] or "") > 20
    labels = " ".join(chart["aria-label"] or "" for chart in charts)
    assert "INT8 batch 32 2.10 (2.02 to 2.19)" in labels


def test_every_table_has_a_caption_and_headings(page: Page) -> None:
    names = [tag for tag, _ in page.tags]
    assert names.count("caption") == names.count("table") > 5
    scopes = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [a["href"] for tag, a in page.tags if tag == "a"]
    assert {f"#{name}" for name in compose(sample())} == set(anchors) <= {f"#{i}" for i in ids}


def test_the_summary_holds_every_number(page: Page) -> None:
    text = " ".join(page.text.split())
    for expected in (
        "93.15 (92.64 to 93.64)",
        "\N{MINUS SIGN}0.06 (\N{MINUS SIGN}0.17 to +0.02)",
        "31.2 (30.8 to 31.5)",
        "107 ms",
        "299.7 (291.9 to 306.3)",
        "2.10\N{MULTIPLICATION SIGN} (2.02 to 2.19)",
        "11.4 MB",
        "15 of 17",
        "2 of 17 weighted layers of the INT8 engine ran in FP32.",
        "This CPU has no FP16 arithmetic",
        "3 NaN and 0 infinite",
        "top1_drop",
        "quantlab run resnet18.yaml",
        "kind: npz",
    ):
        assert expected in text, expected


def test_thousands_of_rows_are_cut_with_a_pointer() -> None:
    page = Page(rendered(huge()))
    rows = [tag for tag, _ in page.tags].count("tr")
    assert rows < 4 * html.ROWS  # tensors, layers left out, kernels, and what is short
    assert "The first 500 of 3,000 rows. All of them are in tables/tensors.csv." in page.text
    assert "But no convolution or matrix product ran in INT8." in page.text


def test_config_keeps_its_lines() -> None:
    report = replace(sample(), config={"a": {"b": "<i>"}})
    section = SECTIONS["reproduce"](report)
    assert section is not None
    source = html.render(report, {"reproduce": section})
    assert "a:\n  b: &lt;i&gt;\n" in source


def test_a_warning_comes_before_the_numbers(page: Page) -> None:
    assert page.text.index("Warnings") < page.text.index("Engines side by side")
