"""Latency and throughput of every engine at every batch size."""

from quantlab.records import Report
from quantlab.reports import formats, plots
from quantlab.reports.blocks import Column, Paragraph, Section, Table, charts, row
from quantlab.reports.sections.summary import batches, speedup_cell, throughput_cell

COLUMNS = (
    Column("Batch"),
    Column("Engine", "precision"),
    Column("p50, ms", "number"),
    Column("p90, ms", "number"),
    Column("p99, ms", "number"),
    Column("Samples/s", "number"),
    Column("Speedup", "number"),
    Column("Inferences", "number"),
)


def section(report: Report) -> Section | None:
    """Return the performance section, None where no speed was measured."""
    sizes = batches(report)
    if not sizes:
        return None
    measured = [
        (engine, found)
        for batch in sizes
        for engine in report.engines
        for found in engine.performance
        if found.batch == batch
    ]
    rounds = max(found.rounds for _, found in measured)
    rows = [
        row(
            formats.count(found.batch),
            formats.label(engine),
            formats.number(found.p50_ms),
            formats.number(found.p90_ms),
            formats.number(found.p99_ms),
            throughput_cell(found),
            speedup_cell(found),
            formats.count(found.inferences),
        )
        for engine, found in measured
    ]
    engines = report.engines
    drawn = (plots.latency(engines), plots.throughput(engines), plots.speedup(engines))
    return Section(
        "Speed",
        (
            Paragraph(
                f"The engines took turns in {formats.plural(rounds, 'round')}, so that a change of "
                "the machine's speed meets all of them. Speedup is the throughput over FP32's, "
                "paired by round."
            ),
            *charts(*drawn, legend=map(formats.label, engines)),
            Table("Latency and throughput by batch size", COLUMNS, tuple(rows), "performance.csv"),
        ),
    )
