"""docs/placement.md lists the rules as the code has them."""

from tests.graph.page import PAGE, page


def test_the_page_is_true() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "PYTHONPATH=. python -P -m tests.graph.page"
