"""From a matplotlib figure to markup that lives inside a page.

The result is the same bytes for the same data.  Colours are names of the page's own variables, so
one chart serves the light and the dark theme.  Text stays text.  Text that comes from a report is
never shown to matplotlib, which would read ``$`` as mathematics and warn of letters its font
lacks: a figure holds tokens, which are exchanged for the escaped text at the end.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from markupsafe import escape

from quantlab.reports.formats import MINUS
from quantlab.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, BAD = "#010101", "#020202", "#030303", "#040404"
COLORS = {"fp32": "#050505", "fp16": "#060606", "int8": "#070707"}
"""Stand-ins that no chart shows: each becomes a variable of style.css."""

MARKERS = {"fp32": "o", "fp16": "s", "int8": "D"}
"""Precisions are told apart without colour too."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BAD: "--bad",
    COLORS["fp32"]: "--fp32",
    COLORS["fp16"]: "--fp16",
    COLORS["int8"]: "--int8",
}

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "path.simplify": False,
}

_SHORTER = (
    (r'<g id="[^"]*"/>', ""),
    (r'<g id="[^"]*">', "<g>"),  # ids of groups repeat from chart to chart, and none is used
    (r' transform="rotate\(-?0 [^"]*"', ""),
    (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),  # the page's font: matplotlib 3.10
    (r"font-family: [^;\"]*;? ?", ""),  # and 3.11
    (r"\s*\n\s*", " "),
)

WIDTH = 4.5
"""Inches; 324 units of the page at 72 an inch, less than a phone's width: text is never small."""


@contextmanager
def canvas(
    name: str, height: float, *, left: float, bottom: float = 0.3
) -> Iterator[tuple["Figure", "Axes"]]:
    """Give a figure with one pair of axes, drawn in the report's style.

    Args:
        name: no other chart of the page has it; ids inside the chart are made from it.
        height: of the figure, inches.
        left: room for the labels on the left, inches.
        bottom: room for the labels below, inches.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(
        ["default", _STYLE | {"svg.hashsalt": name}]
    ):  # whatever the user's own settings are
        figure = Figure(figsize=(WIDTH, height))
        width, top = WIDTH - left - 0.12, height - bottom - 0.12
        yield figure, figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, top / height))


def token(index: int) -> str:
    """Return what stands in a figure for the text ``index``."""
    return f"text-{index}-"


def markup(figure: "Figure", alt: str, texts: Sequence[str] = ()) -> str:
    """Return the figure as an ``<svg>`` element; call inside its ``canvas``.

    Args:
        figure: holds ``token(i)`` wherever ``texts[i]`` is to be read.
        alt: what the chart shows.
        texts: plain text from anywhere.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    opening = re.compile(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>\s*<defs>\s*<style.*?</defs>", re.S)
    label = f'role="img" aria-label="{token(len(texts))}"'
    body = opening.sub(lambda found: f'<svg viewBox="{found[1]}" {label}>', body, count=1)
    for pattern, replacement in _SHORTER:
        body = re.sub(pattern, replacement, body)
    body = re.sub("#0[1-7]0[1-7]0[1-7]", lambda found: f"var({_VARIABLES[found[0]]})", body)
    said = [str(escape(visible(text))) for text in (*texts, alt)]
    return re.sub(r"text-(\d+)-", lambda found: said[int(found[1])], body).strip()


def name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a chart, the first at the top."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)


def beside(axes: "Axes", x: float, y: float, text: str) -> None:
    """Write ``text`` right of a point, clear of its marker."""
    axes.annotate(text, (x, y), xytext=(8, 0), textcoords="offset points", va="center", color=INK)


def axis_number(value: float, position: float = 0) -> str:
    """Return an axis label like 20k; the signature is what matplotlib calls."""
    del position
    for suffix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g}{suffix}"
    return f"{value:.6g}".replace("-", MINUS, 1)
