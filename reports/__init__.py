"""The report of a run: report.json, and the tables and pages made from it.

To add a section: a file in ``sections/`` with ``section(report)``, and its place in SECTIONS.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

if "." not in __name__:
    raise ImportError(
        "this folder is the package quantlab.reports; install quantlab (pip install -e .) and "
        "import that, or start Python outside the checkout"
    )

from quantlab.files import translated
from quantlab.files import write as write_file
from quantlab.records import Report
from quantlab.reports import html, jsonfile, markdown, tables
from quantlab.reports.blocks import Section
from quantlab.reports.jsonfile import load
from quantlab.reports.sections import (
    accuracy,
    calibration,
    classes,
    diagnosis,
    fusions,
    layers,
    performance,
    placement,
    plans,
    repair,
    reproduce,
    search,
    size,
    summary,
    tensors,
)
from quantlab.reports.tables import compare
from quantlab.reports.terminal import compare_table, result_tables, summary_table
from quantlab.reports.verdict import verdict

__all__ = [
    "SECTIONS",
    "compare",
    "compare_table",
    "compose",
    "load",
    "result_tables",
    "summary_table",
    "verdict",
    "write",
]

SECTIONS: Mapping[str, Callable[[Report], Section | None]] = {
    "summary": summary.section,
    "accuracy": accuracy.section,
    "speed": performance.section,
    "size": size.section,
    "search": search.section,
    "int8": layers.section,
    "fusions": fusions.section,
    "diagnosis": diagnosis.section,
    "repair": repair.section,
    "tensors": tensors.section,
    "classes": classes.section,
    "placement": placement.section,
    "calibration": calibration.section,
    "plans": plans.section,
    "reproduce": reproduce.section,
}
"""By the name of its anchor, in the order of the page."""


def compose(report: Report) -> dict[str, Section]:
    """Return the sections that have something to say, by name and in order."""
    made = {name: section(report) for name, section in SECTIONS.items()}
    return {name: section for name, section in made.items() if section is not None}


def write(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write report.html, report.md, tables/*.csv and at last report.json; each whole or not.

    Everything is made from what report.json will hold, so rendering it again changes nothing.

    Args:
        report: all its numbers finite.
        folder: the run folder; made if need be.

    Returns:
        The files, report.json last.

    Raises:
        OutputError: the folder is not writable or the disk is full.
        ValueError: a number is NaN or infinite.
    """
    with translated(folder / "tables"):
        (folder / "tables").mkdir(parents=True, exist_ok=True)
    text = jsonfile.dumps(report)
    saved = jsonfile.loads(text, "report.json")
    sections = compose(saved)
    files = {
        f"tables/{name}.csv": frame.to_csv(index=False, lineterminator="\n")
        for name, frame in tables.frames(saved).items()
    }
    files["report.md"] = markdown.render(saved, sections)
    files["report.html"] = html.render(saved, sections)
    files["report.json"] = text
    for name, content in files.items():
        write_file(folder / name, content)
    return tuple(folder / name for name in files)
