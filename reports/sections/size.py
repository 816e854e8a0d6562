"""What each engine weighs and how long its build took."""

from quantlab.records import Report
from quantlab.reports import formats, plots
from quantlab.reports.blocks import Column, Section, Table, charts, row


def section(report: Report) -> Section | None:
    """Return the size section, None without engines."""
    if not report.engines:
        return None
    columns = (
        Column("Engine", "precision"),
        Column("Size", "number"),
        Column("Build", "number"),
        Column("Backend", "code"),
        Column("Device"),
    )
    rows = [
        row(
            formats.label(engine),
            formats.size(engine.size_bytes),
            formats.seconds(engine.build_seconds),
            engine.backend,
            engine.device,
        )
        for engine in report.engines
    ]
    table = Table("Size and build time by engine", columns, tuple(rows), "summary.csv")
    return Section("Size", (*charts(plots.sizes(report.engines)), table))
