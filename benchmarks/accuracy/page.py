"""The tables of docs/accuracy.md, from the result file.

``python -m benchmarks.accuracy.page`` writes them anew.
"""

from pathlib import Path

from benchmarks.accuracy.figures import figures
from benchmarks.accuracy.results import PATH, load
from benchmarks.accuracy.tables import page
from benchmarks.peers.environments import ROOT

PAGE = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def filled(text: str, path: Path = PATH) -> str:
    """Return a page with the tables between its marks replaced by those of a result file."""
    results = load(path)
    head, _, rest = text.partition(BEGIN)
    tables = page(results, list(figures(results)))
    return f"{head}{BEGIN}\n{tables}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
