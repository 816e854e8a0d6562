"""Tables for the end of a command, drawn by rich."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from quantlab.records import Performance, Report
from quantlab.reports import formats
from quantlab.reports.blocks import Cell
from quantlab.reports.sections import summary


def summary_table(report: Report) -> Table:
    """Return the report's summary: a column an engine, a row a measure."""
    found = summary.table(report)
    table = Table(title=found.caption, title_justify="left")
    for column in found.columns:
        table.add_column(column.name, justify="right" if column.kind == "precision" else "left")
    for cells in found.rows:
        table.add_row(*(Text(formats.visible(str(cell))) for cell in cells))
    return table


def compare_table(reports: Sequence[Report], names: Sequence[str]) -> Table:
    """Return runs side by side: a row an engine and batch size, values with their intervals.

    Args:
        reports: in the order of the rows.
        names: what each is called, e.g. its run folder.
    """
    metrics = list(dict.fromkeys(name for report in reports for name in summary.metrics(report)))
    table = Table()
    for heading in ("Run", "Engine", *metrics, "Size", "Batch", "p50", "Samples/s", "Speedup"):
        table.add_column(Text(formats.visible(heading)))
    for name, report in zip(names, reports, strict=True):
        for engine in report.engines:
            values = [summary.accuracy_cell(engine, metric) for metric in metrics]
            facts = [name, formats.label(engine), *values, formats.size(engine.size_bytes)]
            for speed in [_speed(found) for found in engine.performance] or [[]]:
                cells = [*facts, *speed]
                table.add_row(*(Text(formats.visible(str(cell))) for cell in cells))
    return table


def _speed(found: Performance) -> list[str | Cell]:
    return [
        str(found.batch),
        f"{formats.number(found.p50_ms)} ms",
        summary.throughput_cell(found),
        summary.speedup_cell(found),
    ]
