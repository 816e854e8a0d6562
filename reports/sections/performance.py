"""Latency and throughput of every engine at every batch size."""

from quantlab.measured import DevicePerformance, Performance
from quantlab.records import EngineReport, Report
from quantlab.reports import formats, plots
from quantlab.reports.blocks import (
    Block,
    Column,
    Paragraph,
    Section,
    Table,
    callout,
    charts,
    row,
)
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

ON_DEVICE = (
    Column("Batch"),
    Column("Engine", "precision"),
    Column("GPU p50, ms", "number"),
    Column("GPU p90, ms", "number"),
    Column("GPU p99, ms", "number"),
    Column("H2D p50, ms", "number"),
    Column("D2H p50, ms", "number"),
    Column("Enqueue p50, ms", "number"),
)

CIRCUMSTANCES = (
    Column("Batch"),
    Column("Engine", "precision"),
    Column("Samples/s without copies", "number"),
    Column("CUDA graph"),
    Column("Clock, MHz", "number"),
    Column("Power, W", "number"),
)

Timed = tuple[EngineReport, Performance, DevicePerformance]


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
    device = [
        (engine, found, found.device) for engine, found in measured if found.device is not None
    ]
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
            *_device(device),
        ),
    )


def _device(measured: list[Timed]) -> tuple[Block, ...]:
    """Return what the device's clock says, nothing where there is none."""
    if not measured:
        return ()
    warnings = [
        f"{formats.label(engine)}, batch {found.batch}: {text}"
        for engine, found, device in measured
        for text in device.warnings
    ]
    times = [
        row(
            formats.count(found.batch),
            formats.label(engine),
            *(formats.number(getattr(device.compute_ms, p)) for p in ("p50", "p90", "p99")),
            *(formats.number(t.p50) for t in (device.h2d_ms, device.d2h_ms, device.enqueue_ms)),
        )
        for engine, found, device in measured
    ]
    rates = [
        row(
            formats.count(found.batch),
            formats.label(engine),
            _rate(device.throughput_without_transfers),
            "yes" if device.cuda_graph else "no",
            _range(device.clocks_mhz),
            _range(device.power_watts),
        )
        for engine, found, device in measured
    ]
    return (
        Paragraph(
            "By the GPU's own clock, measured as trtexec does: the inference and both copies by "
            "CUDA events, the host's time to enqueue, and how many samples a second pass where "
            "inputs and outputs stay on the GPU. Neighbouring inferences overlap, so throughput is "
            "more than one over the latency."
        ),
        *callout("What makes these numbers doubtful", warnings),
        Table("Times on the device by batch size", ON_DEVICE, tuple(times), "device.csv"),
        Table("Rate, clock and power by batch size", CIRCUMSTANCES, tuple(rates), "device.csv"),
    )


def _rate(value: float) -> str:
    return formats.fixed(value, formats.places(value, 4))


def _range(found: tuple[float, float] | None) -> str:
    if found is None:
        return formats.MISSING
    low, high = (formats.fixed(value, 0) for value in found)
    return low if low == high else f"{low} to {high}"
