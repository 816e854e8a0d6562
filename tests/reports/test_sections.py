"""Every section, for any report: consistent tables, or nothing to say."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from quantlab.records import Decision, Fusion, Report
from quantlab.reports import SECTIONS, compose, tables
from quantlab.reports.blocks import Block, Callout, Charts, Details, Section, Table
from quantlab.reports.reasons import AMONG, CHOSEN, UNNAMED, left_out
from tests.reports.sample import sample
from tests.reports.sample_gpu import COPY, gpu_sample
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
def test_of_the_samples(name: str) -> None:
    section = SECTIONS[name](gpu_sample())
    assert section is not None
    check(section)
    on_a_cpu = SECTIONS[name](sample())
    assert (on_a_cpu is None) == (name in ("fusions", "plans"))


@settings(max_examples=8)
@given(reports())
def test_of_any_report(report: Report) -> None:
    for section in compose(report).values():
        check(section)


def test_what_was_not_measured_is_left_out() -> None:
    bare = replace(
        sample(), engines=(), tensors=(), histograms=(), placement=(), classes=(), targets=()
    )
    bare = replace(bare, analysis=None, repair=None, search=None)
    assert list(compose(bare)) == ["summary", "calibration", "reproduce"]


def test_long_tables_can_be_found_whole() -> None:
    """A table that may be cut names the file that is not."""
    for section in compose(gpu_sample()).values():
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


def test_layers_left_out_of_int8_have_a_reason() -> None:
    rows = {found.name: found.reason for found in left_out(gpu_sample())}
    assert rows == {
        "/layer1/conv0/Conv": CHOSEN,
        "/layer4/conv3/Conv": CHOSEN,
        "/add0": "no convolution to fuse it into",
    }
    told = replace(sample(), placement=sample().placement[:1])
    assert [found.reason for found in left_out(told)] == [UNNAMED, UNNAMED]


def test_a_layer_that_placement_is_silent_about_has_the_reason_of_a_follower() -> None:
    stays = Decision("/layer1/conv0/Conv", "Conv", quantized=False, rule="r", reason="it is float")
    joins = Decision("/layer4/conv3/Conv", "Conv", quantized=True, rule="r", reason="it is fused")
    report = replace(sample(), placement=(), followers=(stays, joins))
    assert [found.reason for found in left_out(report)] == ["it is float", AMONG]
    assert {found.reason for found in left_out(replace(report, placement=sample().placement))} == {
        CHOSEN
    }


def test_a_fused_layer_has_the_reason_of_its_nodes() -> None:
    """The layer is named after one node, the rule spoke about another."""
    base = sample()
    int8 = replace(
        base.engines[2],
        fusions=(Fusion("/layer1/conv0/Conv", "vertical", ("/layer1/relu", "/conv1/Conv")),),
    )
    first = left_out(replace(base, engines=(int8,)))[0]
    assert first.reason == "the convolution has 3 input channels; INT8 kernels want at least 16"


def test_fusions_are_counted_by_kind_and_reformat_layers_listed() -> None:
    section = SECTIONS["fusions"](gpu_sample())
    assert section is not None
    overview = section.blocks[1]
    assert isinstance(overview, Table)
    counts = {row[0].text: [cell.text for cell in row[1:]] for row in overview.rows}
    assert counts["INT8"] == ["26", "16", "1", "1", "1", "0.0140"]
    assert counts["FP32"][1:5] == ["16", "0", "0", "0"]
    assert COPY in str(section.blocks)


def test_engine_files_say_once_what_all_share() -> None:
    section = SECTIONS["plans"](gpu_sample())
    assert section is not None
    same, differ = section.blocks
    assert isinstance(same, Table)
    assert isinstance(differ, Details)
    assert "TensorRT" in {row[0].text for row in same.rows}
    (table,) = differ.blocks
    assert isinstance(table, Table)
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        ("plan, SHA-256", "FP32"),
        ("plan, SHA-256", "FP16"),
        ("plan, SHA-256", "INT8"),
        ("quantization", "INT8"),
        ("calibration cache, SHA-256", "INT8"),
    ]


def test_the_device_clock_is_shown_with_its_warnings() -> None:
    section = SECTIONS["speed"](gpu_sample())
    assert section is not None
    warned = next(block for block in section.blocks if isinstance(block, Callout))
    (point,) = warned.points
    assert point.startswith("INT8, batch 1: enqueue takes 0.95 of the GPU's time")
    table = section.blocks[-1]
    assert isinstance(table, Table)
    assert table.csv == "device.csv"
    by_engine = {row[1].text: [cell.text for cell in row] for row in table.rows[:3]}
    assert by_engine["FP32"][-3:] == ["no", "1,695", "118 to 146"]
    assert by_engine["FP16"][-3:] == ["yes", "1,605 to 1,695", "\N{EN DASH}"]


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
