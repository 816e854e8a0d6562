"""What was tried to make the INT8 model better, in order, and what stayed."""

from quantlab.findings import Repaired, Trial
from quantlab.records import Report
from quantlab.reports import formats
from quantlab.reports.blocks import Cell, Column, Details, Paragraph, Section, Table, row

SHORT = 12
"""A table of at most so many rows is open from the start."""

COLUMNS = (
    Column("Repair"),
    Column("Tried", "prose"),
    Column("Before, dB", "number"),
    Column("After, dB", "number"),
    Column("Kept"),
    Column("Time", "number"),
    Column("Note", "prose"),
)


def section(report: Report) -> Section | None:
    """Return the section on trials, None where the INT8 model was made as configured."""
    found = report.repair
    if found is None:
        return None
    kept = sum(trial.kept for trial in found.trials)
    judged = (
        f"Judged on {formats.plural(found.held_back, 'sample')} held back from calibration, by the "
        "SQNR at the network's output against FP32: "
        f"{formats.sqnr(found.before_db, 'dB')} before, {formats.sqnr(found.after_db, 'dB')} "
        f"after. {formats.plural(len(found.trials), 'trial')}, {formats.count(kept)} kept, in "
        f"{formats.seconds(sum(trial.seconds for trial in found.trials))}."
    )
    if not found.trials:
        return Section("Repair", (Paragraph(judged),))
    summary = f"{formats.plural(len(found.trials), 'trial')}, in their order"
    details = Details(summary, (table(found),), opened=len(found.trials) <= SHORT)
    return Section("Repair", (Paragraph(judged), details))


def table(found: Repaired) -> Table:
    """Return the trials in their order."""
    rows = tuple(_row(trial) for trial in found.trials)
    return Table("Trials in their order", COLUMNS, rows, "repair.csv")


def _row(trial: Trial) -> tuple[Cell, ...]:
    return row(
        trial.repair,
        trial.what or formats.MISSING,
        formats.sqnr(trial.before_db),
        formats.sqnr(trial.after_db),
        Cell("✓ kept", tone="good") if trial.kept else Cell("no"),
        formats.seconds(trial.seconds),
        trial.note or formats.MISSING,
    )
