"""The plans of a search: accuracy against latency, with the front and the target.

Better is always up and to the left.  The axis of accuracies shows what lies around the target; a
plan far below it is drawn at the lower edge, with its value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from quantlab.findings import Plan, Searched
from quantlab.reports import formats, labels
from quantlab.reports.blocks import Chart
from quantlab.reports.labels import Box, Point
from quantlab.reports.svg import (
    COLORS,
    GRID,
    INK,
    MARKERS,
    MUTED,
    WIDTH,
    axis_number,
    canvas,
    markup,
    token,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 3.5
"""Inches."""

DEPTH = 1.5
"""How far below the target the axis goes, in distances from it of the best and the median plan."""

MARKER, RING = 7.0, 14.0
"""Points across."""

GAP = 1.5
"""Points between a label and a marker or line."""

NAME_COLUMNS = 22
"""Width to which labels are cut."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The axis of accuracies.

    Attributes:
        lowest: accuracy at the lower edge; highest: at the upper one, less for a drop.
        unit: of both.
        decimals: of the numbers.
    """

    lowest: float
    highest: float
    unit: str
    decimals: int

    def shown(self, accuracy: float) -> float:
        """Return where an accuracy is drawn: at the edge if it lies below."""
        worst = max if self.lowest < self.highest else min
        return worst(accuracy, self.lowest)


def front(found: Searched, unit: str, *, at_least: bool) -> Chart | None:
    """Return the plans, None without any.

    Args:
        found: what the search found.
        unit: of the accuracies.
        at_least: more accuracy is better; false for a drop.
    """
    if not found.plans:
        return None
    scale = _scale(found, unit, at_least=at_least)
    title = f"{formats.with_unit(found.target + ',', unit).rstrip(',')}, against latency"
    with canvas("front", HEIGHT, left=0.62, bottom=0.48) as (figure, axes):
        times = [ms for plan in found.plans for ms in (plan.latency_ms, plan.low, plan.high)]
        span = max(times) - min(times) or abs(max(times)) or 1.0
        axes.set_xlim(min(times) - 0.3 * span, max(times) + 0.12 * span)
        axes.set_ylim(scale.lowest, scale.highest)
        axes.set_xlabel(f"latency at batch {formats.count(found.batch)}, ms")
        axes.grid(visible=True)
        axes.locator_params(nbins=5, steps=(1, 2, 5, 10))
        axes.xaxis.set_major_formatter(axis_number)
        axes.yaxis.set_major_formatter(axis_number)
        axes.axhline(found.limit, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.plot(*_steps(found, scale), color=INK, linewidth=1.4)
        for plan in found.plans:
            _mark(axes, plan, scale, chosen=plan.label == found.chosen)
        names = _label(axes, found, scale)
        alt = f"{title}: {'; '.join(_told(plan, found, scale) for plan in found.plans)}."
        note = (
            "up and left is better; line: Pareto front; dashed: target; ring: recommended; "
            "hollow: modelled"
        )
        return Chart(markup(figure, alt, names), alt, title, note)


def _scale(found: Searched, unit: str, *, at_least: bool) -> Scale:
    sign = 1 if at_least else -1
    goods, limit = [sign * plan.accuracy for plan in found.plans], sign * found.limit
    away = [abs(good - limit) for good in goods]
    depth = DEPTH * (max(abs(max(goods) - limit), median(away)) or max(away))
    highest, lowest = max(limit, *goods), min(limit, max(limit - depth, min(goods)))
    margin = 0.1 * ((highest - lowest) or abs(limit) or 1.0)
    decimals = formats.metric_places("%" if unit == "pp" else unit, [lowest, highest])
    return Scale(sign * (lowest - margin), sign * (highest + margin), unit, decimals)


def _steps(found: Searched, scale: Scale) -> tuple[list[float], list[float]]:
    """Return the corners of the front: what is reached within a latency."""
    best = sorted((p.latency_ms, scale.shown(p.accuracy)) for p in found.plans if p.on_front)
    corners = best[:1]
    for (_, before), (ms, accuracy) in pairwise(best):
        corners += [(ms, before), (ms, accuracy)]
    return [x for x, _ in corners], [y for _, y in corners]


def _mark(axes: "Axes", plan: Plan, scale: Scale, *, chosen: bool) -> None:
    color, y = COLORS[plan.precision], scale.shown(plan.accuracy)
    axes.hlines([y], [plan.low], [plan.high], color=color, linewidth=2, alpha=0.6)
    marker = MARKERS[plan.precision] if y == plan.accuracy else "v"
    fill = GRID if plan.speed == "modelled" else color
    axes.plot(
        [plan.latency_ms],
        [y],
        marker,
        color=color,
        markerfacecolor=fill,
        markersize=MARKER,
        clip_on=False,
        zorder=3,
    )
    if chosen:
        axes.plot(
            [plan.latency_ms],
            [y],
            "o",
            markeredgecolor=INK,
            markerfacecolor="none",
            markersize=RING,
            clip_on=False,
        )


def _label(axes: "Axes", found: Searched, scale: Scale) -> list[str]:
    """Write the labels there is room for, the important ones first, and return their texts."""
    ordered = sorted(
        found.plans,
        key=lambda plan: (plan.label != found.chosen, plan.label not in COLORS, not plan.on_front),
    )
    points = [_at(axes, plan.latency_ms, scale.shown(plan.accuracy)) for plan in ordered]
    names = [_name(plan, scale) for plan in ordered]
    x, y = _at(axes, axes.get_xlim()[1], found.limit)
    limit = f"target {_number(found.limit, scale)}"
    width = labels.COLUMN * len(limit)
    end = Box(x - width, y, x, y + 3 + labels.HEIGHT)
    taken = [*_markers(points), *_lines(axes, found, scale), end]
    left, low = _at(axes, axes.get_xlim()[0], scale.lowest)
    frame = Box(left + 2, low + 2, WIDTH * 72 - 2, HEIGHT * 72 - 2)
    places = labels.place(list(zip(points, names, strict=True)), taken, frame)
    _write(axes, token(len(names)), (x - width, y + 3 + labels.HEIGHT / 2), MUTED)
    for index, free in enumerate(places):
        if free:
            _write(axes, token(index), free, INK)
    return [*names, limit]


def _write(axes: "Axes", text: str, at: Point, color: str) -> None:
    """Write ``text`` with its left end in the middle of its height at a place of the figure."""
    axes.annotate(
        text,
        at,
        xycoords="figure points",
        va="center",
        color=color,
        size=labels.SIZE,
        annotation_clip=False,
    )


def _at(axes: "Axes", x: float, y: float) -> Point:
    """Return where data lie in the figure, in points."""
    scale = 72 / axes.figure.dpi
    across, up = axes.transData.transform((x, y))
    return float(across) * scale, float(up) * scale


def _markers(points: Sequence[Point]) -> list[Box]:
    half = MARKER / 2 + GAP
    return [Box(x - half, y - half, x + half, y + half) for x, y in points]


def _lines(axes: "Axes", found: Searched, scale: Scale) -> list[Box]:
    """Return the rectangles of the front, the intervals and the target's line."""
    corners = [_at(axes, x, y) for x, y in zip(*_steps(found, scale), strict=True)]
    ends = [
        (
            _at(axes, plan.low, scale.shown(plan.accuracy)),
            _at(axes, plan.high, scale.shown(plan.accuracy)),
        )
        for plan in found.plans
    ]
    left, right = axes.get_xlim()
    target = (_at(axes, left, found.limit), _at(axes, right, found.limit))
    return [
        Box(min(x, u) - GAP, min(y, v) - GAP, max(x, u) + GAP, max(y, v) + GAP)
        for (x, y), (u, v) in (*pairwise(corners), *ends, target)
    ]


def _name(plan: Plan, scale: Scale) -> str:
    name = formats.shortened(plan.label, NAME_COLUMNS)
    below = scale.shown(plan.accuracy) != plan.accuracy
    return f"{name}: {_number(plan.accuracy, scale)}" if below else name


def _number(accuracy: float, scale: Scale) -> str:
    return formats.with_unit(formats.fixed(accuracy, scale.decimals), scale.unit)


def _told(plan: Plan, found: Searched, scale: Scale) -> str:
    said = f"{plan.label} {_number(plan.accuracy, scale)} in {formats.number(plan.latency_ms)} ms"
    marks = ("recommended", plan.label == found.chosen), ("on the front", plan.on_front)
    return ", ".join([said, *(mark for mark, true in marks if true)])
