"""Top-1 of every class: a small loss overall may be a large one in a single class."""

from quantlab.records import ClassReport, Report
from quantlab.reports import formats, tensorplots
from quantlab.reports.blocks import Cell, Column, Details, Paragraph, Section, Table, charts, row
from quantlab.reports.tables import class_intervals, classes_by_difference

DRAWN = 15
"""Classes drawn."""


def section(report: Report) -> Section | None:
    """Return the section on classes, None without labels."""
    if not report.classes:
        return None
    ordered = classes_by_difference(report.classes)
    precisions = [p for p in formats.LABELS if any(p in found.top1 for found in ordered)]
    columns = (
        Column("Class"),
        Column("Samples", "number"),
        *(Column(f"{formats.LABELS[p]}, %", "number") for p in precisions),
    )
    table = Table(
        "Top-1 by class, widest apart first",
        columns,
        tuple(_row(found, precisions) for found in ordered),
        "classes.csv",
    )
    note = Paragraph(
        "Intervals are 95 % Wilson intervals of each value by itself. With few samples in a class "
        "they are wide: values whose intervals overlap may well be equal."
    )
    drawn = [(found, class_intervals(found)) for found in ordered[:DRAWN]]
    summary = f"All {len(ordered)} classes" if len(ordered) > 1 else "The class"
    return Section(
        "Classes",
        (
            note,
            *charts(tensorplots.classes(drawn), legend=("FP32", "INT8")),
            Details(summary, (table,)),
        ),
    )


def _row(found: ClassReport, precisions: list[str]) -> tuple[Cell, ...]:
    values = class_intervals(found)
    cells = [
        Cell(
            formats.fixed(values[p].value, 1),
            formats.interval(values[p].low, values[p].high, 1),
        )
        if p in values
        else Cell(formats.MISSING)
        for p in precisions
    ]
    name = found.name if found.name == str(found.index) else f"{found.index} {found.name}"
    return row(name, formats.count(found.samples), *cells)
