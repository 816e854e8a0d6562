"""What a report's section is made of, before it is HTML, Markdown or text.

A section builds blocks once from the report; ``html`` and ``markdown`` each know how to draw every
block, so both say the same.  All strings are plain text that the renderers escape; only
``Chart.svg`` is markup, made by ``quantlab.reports.svg``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Kind = Literal["text", "prose", "number", "code", "precision"]
Tone = Literal["", "good", "bad"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of plain text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, slots=True)
class Callout:
    """What must not be overlooked: a title and its points."""

    kind: ClassVar[str] = "callout"
    title: str
    points: tuple[str, ...]
    tone: Tone


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and how its cells are set."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, a quieter note (an interval), and whether it is good or bad news."""

    text: str
    note: str = ""
    tone: Tone = ""

    def __str__(self) -> str:
        """Return text and note in one line."""
        return f"{self.text} {self.note}" if self.note else self.text


@dataclass(frozen=True, slots=True)
class Table:
    """A table; its first column names the rows.

    Attributes:
        caption: what the table holds, and in which order.
        rows: one cell a column, all rows; the renderers draw the first ones.
        csv: file in ``tables/`` that holds every row, "" if there is none.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    csv: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        svg: markup, safe to put into a page.
        alt: what it shows, for those who do not see it.
        title: heading above it.
        note: line below it; ``code`` sets the title as a name.
    """

    kind: ClassVar[str] = "chart"
    svg: str
    alt: str
    title: str
    note: str = ""
    code: bool = False


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts side by side where there is room; ``legend`` names the precisions they show."""

    kind: ClassVar[str] = "charts"
    items: tuple[Chart, ...]
    legend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values."""

    kind: ClassVar[str] = "facts"
    caption: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Code:
    """A command or a file, word by word."""

    kind: ClassVar[str] = "code"
    caption: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks behind a heading that opens them."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: tuple["Block", ...]
    opened: bool = False


Block = Paragraph | Callout | Table | Chart | Charts | Facts | Code | Details


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: tuple[Block, ...]


def row(*cells: str | Cell) -> tuple[Cell, ...]:
    """Return a table's row."""
    return tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells)


def charts(*items: Chart | None, legend: Iterable[str] = ()) -> tuple[Charts, ...]:
    """Return the charts that there are, as blocks."""
    drawn = tuple(item for item in items if item is not None)
    return (Charts(drawn, tuple(dict.fromkeys(legend))),) if drawn else ()


def callout(title: str, points: Sequence[str], tone: Tone = "bad") -> tuple[Callout, ...]:
    """Return a callout if there is anything to say."""
    return (Callout(title, tuple(points), tone),) if points else ()
