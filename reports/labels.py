"""Where the labels of points go, so that none covers another, a point, or a line.

Each label takes the first free place around its point, in the order of the labels; one that finds
none is left out.  Units: points (1/72 inch) from the lower left corner of the chart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantlab.reports.formats import columns

SIZE = 9.5
"""Of the letters."""

COLUMN = 0.56 * SIZE
"""Width of a letter, on average and in most fonts."""

HEIGHT = 1.1 * SIZE

NEAR, FAR = 9.5, 19.0
"""Distances of a label from its point."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    left: float
    low: float
    right: float
    high: float

    def meets(self, other: "Box") -> bool:
        """Whether the two have a point in common."""
        across = self.left <= other.right and other.left <= self.right
        return across and self.low <= other.high and other.low <= self.high

    def inside(self, other: "Box") -> bool:
        """Whether it lies within the other."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.low <= self.low and self.high <= other.high


Point = tuple[float, float]


def place(
    labels: Sequence[tuple[Point, str]], taken: Sequence[Box], frame: Box
) -> list[Point | None]:
    """Return the left end and middle height of each label, None where there is no room.

    Args:
        labels: point and text; what comes first has the choice.
        taken: rectangles that no label may cover.
        frame: none may leave it.
    """
    covered = list(taken)
    places: list[Point | None] = []
    for point, text in labels:
        width = COLUMN * columns(text)
        free = (
            box
            for box in _around(point, width)
            if box.inside(frame) and not any(map(box.meets, covered))
        )
        found = next(free, None)
        covered += [found] if found else []
        places.append((found.left, (found.low + found.high) / 2) if found else None)
    return places


def _around(point: Point, width: float) -> Iterator[Box]:
    """Yield the boxes around a point, left of it first, then those farther away."""
    x, y = point
    for away in (NEAR, FAR):
        rise = away + HEIGHT / 2
        for left, middle in (
            (x - away - width, y),
            (x - away / 2 - width, y + rise),
            (x + away, y),
            (x - width / 2, y + rise),
            (x + away / 2, y + rise),
            (x + away / 2, y - rise),
            (x - width / 2, y - rise),
            (x - away / 2 - width, y - rise),
        ):
            yield Box(left, middle - HEIGHT / 2, left + width, middle + HEIGHT / 2)
