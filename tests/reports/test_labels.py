"""Labels of points: none covers another, a point or a line, wherever the points lie."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from quantlab.reports.labels import COLUMN, HEIGHT, Box, place

FRAME = Box(0, 0, 300, 200)
POINTS = st.tuples(st.floats(0, 300), st.floats(0, 200))


def box(at: tuple[float, float], text: str) -> Box:
    x, y = at
    return Box(x, y - HEIGHT / 2, x + COLUMN * len(text), y + HEIGHT / 2)


@given(st.lists(st.tuples(POINTS, st.text("ab", min_size=1, max_size=20)), max_size=12))
def test_labels_keep_apart(labels: list[tuple[tuple[float, float], str]]) -> None:
    markers = [Box(x - 4, y - 4, x + 4, y + 4) for (x, y), _ in labels]
    places = place(labels, markers, FRAME)
    boxes = [box(at, text) for at, (_, text) in zip(places, labels, strict=True) if at]
    shrunk = [Box(b.left + 0.01, b.low + 0.01, b.right - 0.01, b.high - 0.01) for b in boxes]
    assert all(b.inside(FRAME) for b in shrunk)
    assert not any(a.meets(b) for a, b in combinations(shrunk, 2))
    assert not any(a.meets(b) for a in shrunk for b in markers)


def test_a_label_stands_beside_its_point_or_not_at_all() -> None:
    ((x, y),) = place([((150, 100), "abc")], [], FRAME)  # type: ignore[misc]  # there is room
    assert abs(x - 150) < 40
    assert y == 100
    assert place([((150, 100), "a" * 80)], [], FRAME) == [None]
    everything = Box(-500, -500, 500, 500)
    assert place([((150, 100), "a")], [everything], FRAME) == [None]
