"""What each engine file was built with and for, as its manifest says."""

from quantlab.records import Report
from quantlab.reports import formats
from quantlab.reports.blocks import Block, Column, Details, Section, Table, row


def section(report: Report) -> Section | None:
    """Return the section on engine files, None where none has a manifest."""
    told = [engine for engine in report.engines if engine.facts]
    if not told:
        return None
    names = dict.fromkeys(name for engine in told for name in engine.facts)
    same = [name for name in names if len({engine.facts.get(name) for engine in told}) == 1]
    columns = (Column(""), Column("Engine", "precision"), Column("Value"))
    rows = [
        row(name, formats.label(engine), engine.facts[name])
        for name in names
        for engine in told
        if name not in same and name in engine.facts
    ]
    shared = tuple(row(name, told[0].facts[name]) for name in same)
    blocks: list[Block] = []
    if shared:
        caption = "Of every engine" if len(told) > 1 else "Of the engine"
        blocks.append(Table(caption, (Column(""), Column("Value")), shared, "facts.csv"))
    if rows:
        table = Table("Where the engines differ", columns, tuple(rows), "facts.csv")
        blocks.append(Details("Where the engines differ", (table,)))
    return Section("Engine files", tuple(blocks))
