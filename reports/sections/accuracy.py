"""Every metric of every engine, with its interval and its paired difference from FP32."""

from dataclasses import replace

from quantlab.records import Report
from quantlab.reports import formats, plots
from quantlab.reports.blocks import Cell, Column, Paragraph, Section, Table, charts, row
from quantlab.reports.sections.summary import NONE, accuracy_cell, change_cell, metrics


def section(report: Report) -> Section | None:
    """Return the accuracy section, None where no accuracy was measured."""
    names = metrics(report)
    if not names:
        return None
    drawn = [
        draw(report.engines, name) for name in names for draw in (plots.accuracy, plots.change)
    ]
    return Section(
        "Accuracy",
        (
            Paragraph(
                "Intervals are 95 % bootstrap intervals over the evaluation samples. A change is "
                "paired: both engines saw the same samples, so it is known more exactly than two "
                "separate values would tell."
            ),
            *charts(*drawn, legend=map(formats.label, report.engines)),
            _table(report, names),
        ),
    )


def _table(report: Report, names: list[str]) -> Table:
    rows = [
        row(
            name,
            formats.label(engine),
            _with_unit(accuracy_cell(engine, name), found.unit),
            _with_unit(change_cell(engine, name), formats.delta_unit(found.unit)),
            formats.count(found.samples),
        )
        for name in names
        for engine in report.engines
        if (found := engine.accuracy.get(name))
    ]
    columns = (
        Column("Metric", "code"),
        Column("Engine", "precision"),
        Column("Value", "number"),
        Column("Change from FP32", "number"),
        Column("Samples", "number"),
    )
    return Table("Accuracy by metric and engine", columns, tuple(rows), "accuracy.csv")


def _with_unit(cell: Cell, unit: str) -> Cell:
    return cell if cell == NONE else replace(cell, text=formats.with_unit(cell.text, unit))
