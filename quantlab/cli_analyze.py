"""``quantlab analyze``: what quantizing each layer, tensor and weight costs."""

from typing import TYPE_CHECKING

from quantlab.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from quantlab.findings import Analysis, Sensitivity

WORST = 10
"""Rows that are shown of each kind."""

TITLES = {"layer": "layers", "activation": "tensors", "weight": "weights"}


def show(analysis: "Analysis", console: "Console", *, worst: int = WORST) -> None:
    """Print the worst rows of each kind, and what they suffer from.

    Args:
        analysis: to show.
        console: to print to.
        worst: how many rows of each kind.
    """
    from rich.text import Text

    for kind, title in TITLES.items():
        rows = [row for row in analysis.rows if row.kind == kind]
        if rows:
            more = f", the worst {worst} of {len(rows)}" if len(rows) > worst else ""
            console.print(_table(analysis, rows[:worst], title + more))
    for finding in analysis.findings:
        console.print(Text(f"{visible(finding.text)}."))
    for note in analysis.notes:
        console.print(Text(visible(note)))
    console.print(
        f"all of INT8: {_db(analysis.all_db)} dB at the output; {analysis.samples} samples, "
        f"{len(analysis.rows)} rows in {analysis.seconds:.1f} s"
    )


def _table(analysis: "Analysis", rows: "list[Sensitivity]", title: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for column in ("name", "read by", "operator"):
        table.add_column(column, overflow="fold")
    for column in ("itself, dB", "alone, dB", "all but it, dB"):
        table.add_column(column, justify="right")
    if analysis.metric:
        unit = f", {analysis.unit}" if analysis.unit else ""
        table.add_column(f"{analysis.metric} drop{unit}", justify="right")
    for row in rows:
        texts = (Text(visible(text)) for text in (row.name, row.layer, row.op))
        numbers = [_db(row.own_db), _db(row.alone_db), _db(row.without_db)]
        if analysis.metric:
            numbers.append("" if row.drop is None else f"{row.drop:.3g}")
        table.add_row(*texts, *numbers)
    return table


def _db(value: float | None) -> str:
    return "no error" if value is None else f"{value:.1f}"
