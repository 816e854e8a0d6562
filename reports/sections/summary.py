"""The engines side by side, the targets, and what must not be overlooked."""

from collections.abc import Callable

from quantlab.measured import Performance, TargetResult
from quantlab.records import EngineReport, Report
from quantlab.reports import formats
from quantlab.reports.blocks import Callout, Cell, Column, Section, Table, callout, row
from quantlab.reports.verdict import evidence, value_interval

Pick = Callable[[EngineReport], Cell]

NONE = Cell(formats.MISSING)


def section(report: Report) -> Section:
    """Return warnings, the summary table and the targets."""
    blocks: tuple[Callout | Table, ...] = callout("Warnings", report.warnings)
    if report.engines:
        blocks += (table(report),)
    if report.targets:
        blocks += (_targets(report),)
    return Section("Summary", blocks)


def table(report: Report) -> Table:
    """Return the summary: a column an engine, a row a measure."""
    engines = report.engines
    columns = tuple(Column(formats.label(engine), "precision") for engine in engines)
    rows = [
        *(line for name in metrics(report) for line in _accuracy(name, engines)),
        *(line for batch in batches(report) for line in _performance(batch)),
        ("Size on disk", lambda engine: Cell(formats.size(engine.size_bytes))),
        ("Computed in", lambda engine: Cell(engine.ran)),
        ("Layers in INT8", _integer),
    ]
    filled = [(name, [pick(engine) for engine in engines]) for name, pick in rows]
    return Table(
        "Engines side by side, with 95 % intervals",
        (Column(""), *columns),
        tuple(row(name, *cells) for name, cells in filled if any(c != NONE for c in cells)),
        "summary.csv",
    )


def metrics(report: Report) -> list[str]:
    """Return the metrics that any engine has, in their order."""
    return list(dict.fromkeys(name for engine in report.engines for name in engine.accuracy))


def batches(report: Report) -> list[int]:
    """Return the measured batch sizes, rising."""
    return sorted({found.batch for engine in report.engines for found in engine.performance})


def _accuracy(name: str, engines: tuple[EngineReport, ...]) -> list[tuple[str, Pick]]:
    unit = next(e.accuracy[name].unit for e in engines if name in e.accuracy)
    change = formats.delta_unit(unit)
    return [
        (f"{name}, {unit}" if unit else name, lambda engine: accuracy_cell(engine, name)),
        (
            f"{name} change, {change}" if change else f"{name} change",
            lambda engine: change_cell(engine, name),
        ),
    ]


def accuracy_cell(engine: EngineReport, metric: str) -> Cell:
    """Return an engine's value of a metric with its interval."""
    found = engine.accuracy.get(metric)
    value = value_interval(found) if found else None
    if found is None or value is None:
        return NONE
    decimals = formats.metric_places(found.unit, formats.bounds(value))
    return Cell(
        formats.fixed(value.value, decimals), formats.interval(value.low, value.high, decimals)
    )


def change_cell(engine: EngineReport, metric: str) -> Cell:
    """Return a metric's signed difference from FP32 with its interval."""
    found = engine.accuracy.get(metric)
    if found is None or found.delta is None:
        return NONE
    delta = found.delta
    decimals = formats.metric_places(found.unit, formats.bounds(delta))
    return Cell(
        formats.fixed(delta.value, decimals, signed=True),
        formats.interval(delta.low, delta.high, decimals, signed=True),
    )


def _performance(batch: int) -> list[tuple[str, Pick]]:
    def at(engine: EngineReport, show: Callable[[Performance], Cell]) -> Cell:
        found = next((p for p in engine.performance if p.batch == batch), None)
        return show(found) if found else NONE

    return [
        (f"Latency p50, batch {batch}", lambda e: at(e, _latency)),
        (f"Samples/s, batch {batch}", lambda e: at(e, throughput_cell)),
        (f"Speedup, batch {batch}", lambda e: at(e, speedup_cell)),
    ]


def _latency(found: Performance) -> Cell:
    return Cell(f"{formats.number(found.p50_ms)} ms")


def throughput_cell(found: Performance) -> Cell:
    """Return samples a second with their interval."""
    return Cell(formats.rate(found), formats.rate_interval(found))


def speedup_cell(found: Performance) -> Cell:
    """Return the throughput over FP32's with its interval."""
    if found.speedup is None:
        return NONE
    bounds = formats.interval(found.speedup.low, found.speedup.high, 2)
    return Cell(formats.ratio(found.speedup.value), bounds)


def _integer(engine: EngineReport) -> Cell:
    if engine.weighted_layers == 0:
        return NONE
    return Cell(f"{engine.integer_layers} of {engine.weighted_layers}")


def _targets(report: Report) -> Table:
    columns = (
        Column("Target", "code"),
        Column("Verdict"),
        Column("Limit", "number"),
        Column("Measured", "number"),
    )
    rows = tuple(_target(target, report) for target in report.targets)
    return Table("Targets that the config states", columns, rows, "targets.csv")


def _target(target: TargetResult, report: Report) -> tuple[Cell, ...]:
    found = evidence(target, report)
    measured = found.measured
    unit = "%" if found.unit == "pp" else found.unit
    decimals = formats.metric_places(
        "%" if unit == formats.TIMES else unit, (*formats.bounds(measured), target.limit)
    )
    limit = formats.with_unit(formats.fixed(target.limit, decimals), found.unit)
    return row(
        Cell(target.name, found.where),
        Cell("✓ met", tone="good") if target.met else Cell("✗ missed", tone="bad"),
        f"{'≥' if found.at_least else '≤'} {limit}",
        Cell(
            formats.with_unit(formats.fixed(measured.value, decimals), found.unit),
            formats.interval(measured.low, measured.high, decimals),
        ),
    )
