"""Tables for the end of a command, drawn by rich."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from quantlab.records import Report
from quantlab.reports import blocks
from quantlab.reports.blocks import Cell
from quantlab.reports.formats import LABELS, MISSING, count
from quantlab.reports.sections import diagnosis, repair, search, summary
from quantlab.visible import visible

ROWS = 20
"""Rows of a table that are printed; its CSV file has all."""


def summary_table(report: Report) -> Table:
    """Return the report's summary: a column an engine, a row a measure."""
    return _drawn(summary.table(report))


def result_tables(report: Report) -> tuple[Table, ...]:
    """Return what a command ends with: diagnosis, repairs and plans if there are, the summary."""
    found: list[blocks.Table] = []
    if report.analysis:
        found.append(diagnosis.table(report.analysis, "layer"))
    if report.repair:
        found.append(repair.table(report.repair))
    if report.search:
        found.append(search.table(report.search, report))
    if report.engines:
        found.append(summary.table(report))
    return tuple(_drawn(table) for table in found if table.rows)


def _drawn(found: blocks.Table) -> Table:
    """Return the table's first rows as rich draws them."""
    shown = found.rows[:ROWS]
    more = len(found.rows) - len(shown)
    table = Table(
        title=Text(visible(found.caption)),
        title_justify="left",
        box=SIMPLE_HEAD,
        caption=f"and {count(more)} more in tables/{found.csv}" if more else None,
        caption_justify="left",
    )
    for column in found.columns:
        right = column.kind in ("precision", "number")
        table.add_column(Text(visible(column.name)), justify="right" if right else "left")
    for cells in shown:
        table.add_row(*map(_stacked, cells))
    return table


def _stacked(cell: Cell) -> Text:
    """Return a cell with its interval below the value: four columns then fit 80 characters."""
    text = Text(visible(cell.text))
    if cell.note:
        text.append(f"\n{visible(cell.note)}", style="dim")
    return text


def compare_table(reports: Sequence[Report], names: Sequence[str]) -> Table:
    """Return runs side by side: a column a run, the rows of their summaries engine by engine.

    Args:
        reports: in the order of the columns.
        names: what each is called, e.g. its run folder.
    """
    columns = [_by_engine(report) for report in reports]
    table = Table(
        title="Runs side by side, with 95 % intervals", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("")
    for name in names:
        table.add_column(Text(visible(name)), justify="right")
    for label in LABELS.values():
        measures = dict.fromkeys(key for column in columns for key in column if key[0] == label)
        for number, key in enumerate(measures):
            cells = (_stacked(column.get(key, Cell(MISSING))) for column in columns)
            table.add_row(
                Text(visible(" ".join(key))),
                *cells,
                end_section=number == len(measures) - 1,
            )
    return table


def _by_engine(report: Report) -> dict[tuple[str, str], Cell]:
    """Return the summary's cells by engine and measure."""
    found = summary.table(report)
    return {
        (column.name, cells[0].text): cell
        for cells in found.rows
        for column, cell in zip(found.columns[1:], cells[1:], strict=True)
        if cell.text != MISSING
    }
