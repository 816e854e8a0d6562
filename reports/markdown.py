"""report.md: the sections as GitHub-flavoured Markdown.

Charts are left out; the tables hold their numbers.  All text is escaped: a name shows as it is and
never becomes markup.
"""

import re
from collections.abc import Mapping, Sequence

from quantlab.records import Report
from quantlab.reports.blocks import (
    Block,
    Callout,
    Cell,
    Chart,
    Charts,
    Code,
    Column,
    Details,
    Facts,
    Paragraph,
    Section,
    Table,
)
from quantlab.reports.formats import count, moment
from quantlab.reports.verdict import verdict
from quantlab.visible import visible

ROWS = 40
"""Rows of a table that are written; the CSV file has all."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def render(report: Report, sections: Mapping[str, Section]) -> str:
    """Return report.md."""
    made = f"quantlab {escape(report.quantlab)}, {escape(moment(report.created))}"
    lines = [f"# {escape(report.model.path)}", "", f"**{escape(verdict(report))}**"]
    lines += ["", f"{made}. Charts: report.html; every number: report.json and tables/."]
    for section in sections.values():
        lines += ["", f"## {escape(section.title)}"]
        lines += [line for block in section.blocks for line in _block(block)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", visible(text))


def code(text: str) -> str:
    """Return ``text`` as a code span that nothing in it can leave, fit for a table's cell."""
    shown = visible(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}" if shown.strip() else "` `"


def _block(block: Block) -> list[str]:
    match block:
        case Table():
            lines = [f"{escape(block.caption)}:", "", *_table(block)]
        case Facts():
            items = [f"- {escape(name)}: {escape(value)}" for name, value in block.items]
            lines = [f"{escape(block.caption)}:", "", *items]
        case Callout():
            points = [f"> - {escape(point)}" for point in block.points]
            lines = [f"> **{escape(block.title)}**", ">", *points]
        case Code():
            lines = [f"{escape(block.caption)}:", "", *_fenced(block)]
        case Details():
            lines = [f"### {escape(block.summary)}", *_inner(block)]
        case Paragraph():
            lines = [escape(block.text)]
        case Chart() | Charts():
            return []
    return ["", *lines]


def _inner(block: Details) -> list[str]:
    """Return the blocks behind a heading; it is the caption of a table that is alone there."""
    match block.blocks:
        case (Table() as table,):
            return ["", *_table(table)]
        case _:
            return [line for inside in block.blocks for line in _block(inside)]


def _table(table: Table) -> list[str]:
    shown = table.rows[:ROWS]
    lines = [
        _line([escape(column.name) for column in table.columns]),
        _line(["---:" if column.kind == "number" else "---" for column in table.columns]),
        *(_line(_cells(row, table.columns)) for row in shown),
    ]
    if len(shown) < len(table.rows):
        hidden = count(len(table.rows) - len(shown))
        lines += ["", f"and {hidden} more in tables/{table.csv}"]
    return lines


def _cells(row: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    return [
        f"{code(cell.text)} {escape(cell.note)}".strip()
        if column.kind == "code"
        else escape(str(cell))
        for cell, column in zip(row, columns, strict=True)
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fenced(block: Code) -> list[str]:
    longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{block.language}", *map(visible, block.text.rstrip("\n").split("\n")), fence]
