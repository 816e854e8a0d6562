"""Charts of the engines: accuracy, speed, size.

Precisions keep their colour and marker in all of them.  Values come with their
95 % interval as a line; nothing is drawn that was not measured.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.measured import Interval, Performance
from quantlab.records import EngineReport
from quantlab.reports import formats
from quantlab.reports.blocks import Chart
from quantlab.reports.svg import (
    COLORS,
    INK,
    MARKERS,
    MUTED,
    axis_number,
    beside,
    canvas,
    markup,
    name_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[EngineReport, Interval]
Point = tuple[EngineReport, Performance]


def accuracy(engines: Sequence[EngineReport], metric: str) -> Chart | None:
    """Return one metric's value for each engine that has one."""
    rows: list[Row] = []
    for engine in engines:
        found = engine.accuracy.get(metric)
        if found and found.value is not None and found.low is not None and found.high is not None:
            rows.append((engine, Interval(found.value, found.low, found.high)))
    if not rows:
        return None
    unit = _unit(engines, metric)
    title = f"{metric}, {unit}" if unit else metric
    return _intervals(title, rows, unit=unit)


def change(engines: Sequence[EngineReport], metric: str) -> Chart | None:
    """Return one metric's paired difference from FP32 for each engine that has one."""
    rows: list[Row] = []
    for engine in engines:
        found = engine.accuracy.get(metric)
        if found and found.delta is not None:
            rows.append((engine, found.delta))
    if not rows:
        return None
    unit = _unit(engines, metric)
    title = formats.with_unit(f"Change of {metric} from FP32,", formats.delta_unit(unit))
    return _intervals(title.rstrip(","), rows, unit=unit, reference=0.0)


def speedup(engines: Sequence[EngineReport]) -> Chart | None:
    """Return the throughput over FP32's at each batch size."""
    points = [(e, p) for e, p in _points(engines) if p.speedup is not None]
    if not points:
        return None
    title = "Throughput over FP32's"
    alt = _alt(title, [(e, f"batch {p.batch}", p.speedup) for e, p in points if p.speedup], 2)
    with canvas("speedup", 2.9, left=0.55) as (figure, axes):
        axes.axhline(1.0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for engine, x, found in _grouped(points, spread=0.16):
            if found.speedup is not None:
                _whisker(axes, engine, x, found.speedup)
        _batches(axes, points)
        highest = max(p.speedup.high for _, p in points if p.speedup)
        axes.set_ylim(0, max(highest, 1.0) * 1.12)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{formats.TIMES}")
        return Chart(markup(figure, alt), alt, title, "dashed: as fast as FP32")


def throughput(engines: Sequence[EngineReport]) -> Chart | None:
    """Return samples a second at each batch size, as bars with intervals."""
    points = _points(engines)
    if not points:
        return None
    title = "Throughput, samples/s"
    ranges = [
        (e, f"batch {p.batch}", Interval(p.throughput, p.throughput_low, p.throughput_high))
        for e, p in points
    ]
    alt = _alt(title, ranges, 0)
    with canvas("throughput", 2.9, left=0.72) as (figure, axes):
        width = 0.8 / max(1, len({e.precision for e, _ in points}))
        for engine, x, p in _grouped(points, spread=width):
            color = COLORS[engine.precision]
            axes.bar([x], [p.throughput], width * 0.86, color=color, alpha=0.85, linewidth=0)
            axes.vlines([x], [p.throughput_low], [p.throughput_high], color=INK, linewidth=1.4)
        _batches(axes, points)
        highest = max(max(p.throughput, p.throughput_high) for _, p in points)
        axes.set_ylim(0, highest * 1.08 if highest > 0 else 1)
        axes.yaxis.set_major_formatter(axis_number)
        return Chart(markup(figure, alt), alt, title, "more is better; line: 95 % interval")


def latency(engines: Sequence[EngineReport]) -> Chart | None:
    """Return the latency's median, 90th and 99th percentile at each batch size."""
    points = [(e, p) for e, p in _points(engines) if min(p.p50_ms, p.p90_ms, p.p99_ms) > 0]
    if not points:
        return None
    title = "Latency of an inference, ms"
    told = [
        f"{formats.label(e)} batch {p.batch} {formats.number(p.p50_ms)}, "
        f"{formats.number(p.p90_ms)} and {formats.number(p.p99_ms)}"
        for e, p in points
    ]
    alt = f"{title}, at p50, p90 and p99: {'; '.join(told)}."
    with canvas("latency", 2.9, left=0.72) as (figure, axes):
        for engine, x, p in _grouped(points, spread=0.2):
            color = COLORS[engine.precision]
            axes.vlines([x], [p.p50_ms], [p.p99_ms], color=color, linewidth=2)
            axes.plot([x], [p.p50_ms], MARKERS[engine.precision], color=color, markersize=7)
            axes.hlines([p.p90_ms, p.p99_ms], [x - 0.06], [x + 0.06], color=color, linewidth=2)
        _batches(axes, points)
        _log_ticks(axes, [ms for _, p in points for ms in (p.p50_ms, p.p90_ms, p.p99_ms)])
        note = "less is better; marker: p50, ticks: p90 and p99"
        return Chart(markup(figure, alt), alt, title, note)


def sizes(engines: Sequence[EngineReport]) -> Chart | None:
    """Return the size of each engine on disk."""
    if not engines:
        return None
    title = "Engine on disk"
    told = ", ".join(f"{formats.label(e)} {formats.size(e.size_bytes)}" for e in engines)
    with canvas("sizes", 0.5 + 0.42 * len(engines), left=0.62, bottom=0.1) as (figure, axes):
        for index, engine in enumerate(engines):
            color = COLORS[engine.precision]
            axes.barh([index], [engine.size_bytes], 0.6, color=color, alpha=0.85, linewidth=0)
            beside(axes, engine.size_bytes, index, formats.size(engine.size_bytes))
        name_rows(axes, [formats.label(engine) for engine in engines])
        axes.set_xlim(0, max(1, *(engine.size_bytes for engine in engines)) * 1.3)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        alt = f"{title}: {told}."
        return Chart(markup(figure, alt), alt, title)


def _intervals(
    title: str, rows: Sequence[Row], *, unit: str, reference: float | None = None
) -> Chart:
    """Draw a value with its interval a row."""
    numbers = [n for _, found in rows for n in formats.bounds(found)]
    decimals = formats.metric_places(unit, numbers)
    alt = _alt(title, [(engine, "", found) for engine, found in rows], decimals)
    with canvas(title, 0.42 + 0.36 * len(rows), left=0.62) as (figure, axes):
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for index, (engine, found) in enumerate(rows):
            color = COLORS[engine.precision]
            axes.hlines([index], [found.low], [found.high], color=color, linewidth=2.4)
            axes.plot([found.value], [index], MARKERS[engine.precision], color=color, markersize=8)
            value = formats.fixed(found.value, decimals, signed=reference is not None)
            beside(axes, found.high, index, value)
        name_rows(axes, [formats.label(engine) for engine, _ in rows])
        axes.set_xlim(_padded([*numbers, *([] if reference is None else [reference])]))
        axes.locator_params(axis="x", nbins=5, steps=(1, 2, 5, 10))
        axes.xaxis.set_major_formatter(axis_number)
        axes.grid(visible=True, axis="x")
        note = "line: 95 % interval"
        note += "; dashed: no change" if reference is not None else ""
        return Chart(markup(figure, alt), alt, title, note)


def _alt(title: str, rows: Sequence[tuple[EngineReport, str, Interval]], decimals: int) -> str:
    told = [
        f"{' '.join(filter(None, (formats.label(engine), where)))} "
        f"{formats.fixed(found.value, decimals)} "
        f"{formats.interval(found.low, found.high, decimals)}"
        for engine, where, found in rows
    ]
    return f"{title}, with 95 % intervals: {'; '.join(told)}."


def _points(engines: Sequence[EngineReport]) -> list[Point]:
    return [(engine, found) for engine in engines for found in engine.performance]


def _grouped(
    points: Sequence[Point], *, spread: float
) -> list[tuple[EngineReport, float, Performance]]:
    """Return each point with its x: batch sizes a step apart, engines side by side around it."""
    batches = sorted({found.batch for _, found in points})
    precisions = list(dict.fromkeys(engine.precision for engine, _ in points))
    middle = (len(precisions) - 1) / 2
    return [
        (e, batches.index(p.batch) + (precisions.index(e.precision) - middle) * spread, p)
        for e, p in points
    ]


def _batches(axes: "Axes", points: Sequence[Point]) -> None:
    batches = sorted({found.batch for _, found in points})
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_xlim(-0.6, len(batches) - 0.4)
    axes.grid(visible=True, axis="y")
    axes.spines["left"].set_visible(False)


def _whisker(axes: "Axes", engine: EngineReport, x: float, found: Interval) -> None:
    color = COLORS[engine.precision]
    axes.vlines([x], [found.low], [found.high], color=color, linewidth=2.4)
    axes.plot([x], [found.value], MARKERS[engine.precision], color=color, markersize=7)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Return limits around ``values``, with room for a number on the right."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) * 0.2 or 1.0
    return low - span * 0.1, high + span * 0.35


def _unit(engines: Sequence[EngineReport], metric: str) -> str:
    return next(e.accuracy[metric].unit for e in engines if metric in e.accuracy)


def _log_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """Set a logarithmic y axis over the values, with ticks at 1, 2 and 5 of each decade."""
    low, high = min(values) * 0.85, max(values) * 1.15
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    below, above = max(t for t in ticks if t <= low), min(t for t in ticks if t >= high)
    shown = [tick for tick in ticks if below <= tick <= above]
    axes.set_yscale("log")
    axes.set_ylim(below, above)
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
