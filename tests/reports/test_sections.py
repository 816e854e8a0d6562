"""Every section, for any report: consistent tables, or nothing to say."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from quantlab.records import Report
from quantlab.reports import SECTIONS, compose, tables
from quantlab.reports.blocks import Block, Callout, Charts, Details, Section, Table
from tests.reports.sample import sample
from tests.reports.strange import reports

FILES = {f"{name}.csv" for name in tables.frames(sample())}


def flat(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from flat(block.blocks)


def check(section: Section) -> None:
    assert section.title
    for block in flat(section.blocks):
        if isinstance(block, Table):
            assert all(len(row) == len(block.columns) for row in block.rows), block.caption
            assert block.csv in FILES | {""}
        if isinstance(block, Charts):
            assert block.items
        if isinstance(block, Callout):
            assert block.points


@pytest.mark.parametrize("name", SECTIONS)
def test_of_the_sample(name: str) -> None:
    section = SECTIONS[name](sample())
    assert section is not None
    check(section)


@settings(max_examples=8)
@given(reports())
def test_of_any_report(report: Report) -> None:
    for section in compose(report).values():
        check(section)


def test_what_was_not_measured_is_left_out() -> None:
    bare = replace(
        sample(), engines=(), tensors=(), histograms=(), placement=(), classes=(), targets=()
    )
    assert list(compose(bare)) == ["summary", "calibration", "reproduce"]


def test_long_tables_can_be_found_whole() -> None:
    """A table that may be cut names the file that is not."""
    for section in compose(sample()).values():
        for block in flat(section.blocks):
            if isinstance(block, Table) and len(block.rows) > 12:
                assert block.csv


def test_layers_that_stayed_in_floating_point_are_named() -> None:
    section = SECTIONS["int8"](sample())
    assert section is not None
    details = [block for block in section.blocks if isinstance(block, Details)]
    left_out = next(
        d for d in details if d.summary == "Weighted layers that did not run in INT8 (2)"
    )
    (table,) = left_out.blocks
    assert isinstance(table, Table)
    assert [row[0].text for row in table.rows] == ["/layer1/conv0/Conv", "/layer4/conv3/Conv"]
    assert left_out.opened


def test_a_float_layer_that_the_backend_does_not_list_is_still_named() -> None:
    int8 = replace(sample().engines[2], float_layers=("gone",), layers=())
    section = SECTIONS["int8"](replace(sample(), engines=(int8,)))
    assert section is not None
    assert any("gone" in str(block) for block in section.blocks)


def test_placement_groups_by_rule_what_is_not_quantized_first() -> None:
    section = SECTIONS["placement"](sample())
    assert section is not None
    rules = section.blocks[0]
    assert isinstance(rules, Table)
    assert [" ".join(cell.text for cell in row[:3]) for row in rules.rows] == [
        "small-channels no 1",
        "float-only no 1",
        "weighted yes 17",
    ]
    quantized = tuple(d for d in sample().placement if d.quantized)
    section = SECTIONS["placement"](replace(sample(), placement=quantized))
    assert section is not None
    assert len(section.blocks) == 1
