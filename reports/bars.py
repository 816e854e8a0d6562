"""A ranking as bars, each below its name, the first at the top."""

from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.reports import formats
from quantlab.reports.blocks import Chart
from quantlab.reports.svg import COLORS, MUTED, beside, canvas, markup, token

RANKED = 10
"""Bars of a ranking."""

WIDE_COLUMNS = 52
"""Width to which names above a row are cut."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row: its name, how long its bar is, and the number beside it."""

    name: str
    length: float
    number: str


def ranking(
    rows: Sequence[Bar], title: str, note: str, *, key: str, longest: float = 0.0
) -> Chart | None:
    """Return the first rows as bars, None without rows.

    Args:
        rows: in the order of the chart.
        title: of the chart.
        note: line below it.
        key: tells the page's rankings apart.
        longest: a length that the chart has room for, as that of a chart beside it.
    """
    shown = rows[:RANKED]
    if not shown:
        return None
    alt = f"{title}: {', '.join(f'{bar.name} {bar.number}' for bar in shown)}."
    lengths = [bar.length for bar in shown]
    with canvas(key, 0.2 + 0.42 * len(shown), left=0.05, bottom=0.08) as (figure, axes):
        axes.barh(range(len(shown)), lengths, 0.34, color=COLORS["int8"], alpha=0.85, linewidth=0)
        room = max(longest, 0.0, *lengths) or 1.0
        for index, bar in enumerate(shown):
            axes.text(0, index - 0.26, token(index), va="bottom", color=MUTED, size=9.5)
            beside(axes, max(bar.length, 0), index, bar.number)
        axes.set_ylim(len(shown) - 0.7, -0.95)
        axes.set_xlim(min(0, *lengths), room * 1.16)
        axes.set_axis_off()
        names = [formats.shortened(bar.name, WIDE_COLUMNS) for bar in shown]
        return Chart(markup(figure, alt, names), alt, title, note)
