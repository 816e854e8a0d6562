"""What quantizing each part costs: in words, as bars, and as tables."""

from dataclasses import dataclass

from quantlab.findings import Analysis, Finding, Sensitivity
from quantlab.records import Report
from quantlab.reports import bars, formats
from quantlab.reports.bars import Bar
from quantlab.reports.blocks import (
    Block,
    Cell,
    Chart,
    Column,
    Details,
    Paragraph,
    Section,
    Table,
    callout,
    charts,
    row,
)
from quantlab.reports.verdict import ended

SHORT = 12
"""A table of at most so many rows is open from the start."""

TOLD = 10
"""Findings that are told; report.json has all."""

LOUDEST = -40.0
"""SQNR in dB that has the longest bar: noise of a hundred times the signal."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the rows of a kind are shown.

    Attributes:
        noun: of one.
        plural: of several, which the chart and the table are about.
        column: heading of the names.
        layered: the row's layer is another name than its own.
    """

    noun: str
    plural: str
    column: str
    layered: bool


KINDS = {
    "layer": Kind("layer", "Layers", "Layer", layered=False),
    "activation": Kind("activation", "Activations", "Tensor", layered=True),
    "weight": Kind("weight tensor", "Weights", "Weights", layered=True),
}


def section(report: Report) -> Section | None:
    """Return the section on sensitivities, None where they were not analyzed."""
    found = report.analysis
    if found is None:
        return None
    explained = (
        f"Each layer, activation and weight quantized alone on "
        f"{formats.plural(found.samples, 'sample')}, in {formats.seconds(found.seconds)}, and all "
        "but it. SQNR is that of the network's output against FP32: 6 dB less double the error. "
        f"With everything quantized it is {formats.sqnr(found.all_db, 'dB')}."
    )
    drawn = [chart(found, kind) for kind in KINDS]
    blocks: list[Block] = [
        Paragraph(explained),
        *callout("What costs most", _told(found.findings), tone=""),
        *callout("Notes", found.notes, tone=""),
        *charts(*drawn),
    ]
    for kind, words in KINDS.items():
        listed = table(found, kind)
        if listed.rows:
            summary = f"{formats.plural(len(listed.rows), words.noun)}, the most costly first"
            opened = kind == "layer" and len(listed.rows) <= SHORT
            blocks.append(Details(summary, (listed,), opened=opened))
    return Section("Diagnosis", tuple(blocks))


def table(found: Analysis, kind: str) -> Table:
    """Return the rows of a kind, in the order of the analysis."""
    words = KINDS[kind]
    rows = tuple(_row(item, found, words) for item in found.rows if item.kind == kind)
    columns = [Column(words.column, "code")]
    columns += [Column("Read by", "code")] if words.layered else []
    columns += [
        Column("Operator"),
        Column("Alone, dB", "number"),
        Column("All but it, dB", "number"),
        Column("Its own output, dB" if kind == "layer" else "Itself, dB", "number"),
    ]
    if found.metric:
        unit = formats.delta_unit(found.unit)
        lost = f"{found.metric} lost alone"
        columns.append(Column(f"{lost}, {unit}" if unit else lost, "number"))
    caption = f"{words.plural} by the SQNR at the network's output of each quantized alone"
    return Table(caption, tuple(columns), rows, "analysis.csv")


def chart(found: Analysis, kind: str) -> Chart | None:
    """Return the most costly rows of a kind as bars, on one scale with those of the others."""
    bars_of = [
        (item.kind, Bar(item.name, _noise(item.alone_db), formats.sqnr(item.alone_db, "dB")))
        for item in found.rows
        if item.alone_db is not None
    ]
    rows = sorted((bar for of, bar in bars_of if of == kind), key=lambda bar: -bar.length)
    longest = max((bar.length for _, bar in bars_of), default=0.0)
    title = f"{KINDS[kind].plural}: error at the network's output, each alone"
    note = "number: SQNR; bar: RMS error relative to FP32's output"
    return bars.ranking(rows, title, note, key=f"sensitivity {kind}", longest=longest)


def _noise(sqnr_db: float) -> float:
    """Return the RMS error relative to the signal's RMS, at most that of LOUDEST."""
    return float(10 ** (-max(sqnr_db, LOUDEST) / 20))


def _row(item: Sensitivity, found: Analysis, words: Kind) -> tuple[Cell, ...]:
    cells = [item.name, *([item.layer] if words.layered else []), item.op]
    cells += map(formats.sqnr, (item.alone_db, item.without_db, item.own_db))
    if found.metric:
        drops = [other.drop for other in found.rows if other.drop is not None]
        decimals = formats.metric_places(found.unit, drops)
        cells.append(formats.MISSING if item.drop is None else formats.fixed(item.drop, decimals))
    return row(*cells)


def _told(findings: tuple[Finding, ...]) -> list[str]:
    told = [_sentence(finding) for finding in findings[:TOLD]]
    more = len(findings) - len(told)
    return [*told, f"and {formats.count(more)} more in report.json"] if more else told


def _sentence(finding: Finding) -> str:
    text = finding.text if finding.name in finding.text else f"{finding.name}: {finding.text}"
    helps = finding.repair and finding.repair not in text
    return f"{ended(text)} Likely to help: the repair {finding.repair}." if helps else ended(text)
