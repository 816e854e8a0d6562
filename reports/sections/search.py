"""The plans that were weighed: the recommended one, the Pareto front, and all of them."""

from quantlab.findings import Plan, Searched
from quantlab.records import Report
from quantlab.reports import formats, pareto
from quantlab.reports.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Paragraph,
    Section,
    Table,
    callout,
    charts,
    row,
)
from quantlab.reports.verdict import chosen, ended, judged_by, recommendation

SHORT = 12
"""A table of at most so many rows is open from the start."""

NAMED = 2
"""Layers that are named in a plan's row; search.csv names all."""


def section(report: Report) -> Section | None:
    """Return the section on the search, None where there was none."""
    found = report.search
    if found is None:
        return None
    unit, at_least = judged_by(found, report)
    points = [point for point in (recommendation(found, report), ended(found.reason)) if point]
    blocks: list[Block] = [
        *callout(f"Recommended: {found.chosen}", points, tone="good" if found.met else "bad"),
        Paragraph(_explained(found)),
        *charts(pareto.front(found, unit, at_least=at_least), legend=_legend(found)),
        *_plans(found, report),
        *_kept(found),
    ]
    return Section("Search", tuple(blocks))


def table(found: Searched, report: Report) -> Table:
    """Return the plans in the order of the search."""
    unit, _ = judged_by(found, report)
    columns = (
        Column("Plan"),
        Column(f"{found.target}, {unit}" if unit else found.target, "number"),
        Column("Target"),
        Column(f"ms at batch {formats.count(found.batch)}", "number"),
        Column("Speed"),
        Column("MACs in INT8", "number"),
        Column("Kept from INT8", "prose"),
    )
    values = [found.limit, *(plan.accuracy for plan in found.plans)]
    decimals = formats.metric_places("%" if unit == "pp" else unit, values)
    rows = tuple(
        _row(plan, decimals, recommended=plan.label == found.chosen) for plan in found.plans
    )
    return Table("Plans, the fastest first", columns, rows, "search.csv")


def _row(plan: Plan, decimals: int, *, recommended: bool) -> tuple[Cell, ...]:
    places = formats.places(plan.latency_ms, 3)
    marks = (("(recommended)", recommended), ("(off the front)", not plan.on_front))
    return row(
        Cell(plan.label, " ".join(mark for mark, true in marks if true)),
        formats.fixed(plan.accuracy, decimals),
        Cell("✓ met", tone="good") if plan.meets else Cell("✗ missed", tone="bad"),
        Cell(formats.number(plan.latency_ms), formats.interval(plan.low, plan.high, places)),
        plan.speed,
        formats.share(plan.macs_int8),
        _floats(plan),
    )


def _floats(plan: Plan) -> str:
    if plan.macs_int8 == 0:
        return "all layers"
    if not plan.floats:
        return "none"
    named = ", ".join(f"{node} ({kind})" for node, kind in plan.floats[:NAMED])
    more = len(plan.floats) - NAMED
    return f"{named} and {formats.count(more)} more" if more > 0 else named


def _explained(found: Searched) -> str:
    return (
        f"Accuracy is judged on {formats.plural(found.held_back, 'sample')} held back from "
        f"calibration; latency is that of {formats.plural(found.batch, 'sample')} in an "
        f"inference. {formats.plural(found.builds, 'engine')} built, "
        f"{formats.seconds(found.seconds)}. A measured latency is a built engine's, with its 95 % "
        "interval; a modelled one adds the times of layers. A plan is off the front where "
        "another is both faster and as accurate."
    )


def _legend(found: Searched) -> list[str]:
    shown = {plan.precision for plan in found.plans}
    return [label for precision, label in formats.LABELS.items() if precision in shown]


def _plans(found: Searched, report: Report) -> list[Block]:
    listed = table(found, report)
    if not listed.rows:
        return []
    summary = f"{formats.plural(len(listed.rows), 'plan')}, the fastest first"
    return [Details(summary, (listed,), opened=len(listed.rows) <= SHORT)]


def _kept(found: Searched) -> list[Block]:
    """Return the layers that the recommended plan keeps from INT8."""
    plan = chosen(found)
    if plan is None or not plan.floats:
        return []
    columns = (Column("Layer", "code"), Column("Type"))
    rows = tuple(row(*kept) for kept in plan.floats)
    kept = f"{formats.plural(len(rows), 'layer')} that the recommended plan keeps from INT8"
    return [Details(kept, (Table(kept, columns, rows, "search.csv"),), opened=len(rows) <= SHORT)]
