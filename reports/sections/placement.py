"""Which nodes were quantized, and the rule that decided."""

from collections import Counter

from quantlab.records import Decision, Report
from quantlab.reports import formats
from quantlab.reports.blocks import Cell, Column, Details, Section, Table, row


def section(report: Report) -> Section | None:
    """Return the section on placement, None where nothing was decided."""
    if not report.placement:
        return None
    groups: dict[tuple[bool, str], list[Decision]] = {}
    for decision in report.placement:
        groups.setdefault((decision.quantized, decision.rule), []).append(decision)
    ordered = sorted(groups.values(), key=lambda group: (group[0].quantized, -len(group)))
    columns = (
        Column("Rule", "code"),
        Column("Quantized"),
        Column("Nodes", "number"),
        Column("Operators"),
        Column("Reason", "prose"),
    )
    rules = Table(
        "Rules that decided, what stays in floating point first",
        columns,
        tuple(_rule(group) for group in ordered),
    )
    nodes = Table(
        "Nodes that stay in floating point",
        (
            Column("Node", "code"),
            Column("Operator"),
            Column("Rule", "code"),
            Column("Reason", "prose"),
        ),
        tuple(row(d.node, d.op, d.rule, d.reason) for d in report.placement if not d.quantized),
        "placement.csv",
    )
    if not nodes.rows:
        return Section("Placement", (rules,))
    summary = f"{formats.plural(len(nodes.rows), 'node')} that stay in floating point"
    return Section("Placement", (rules, Details(summary, (nodes,))))


def _rule(group: list[Decision]) -> tuple[Cell, ...]:
    first = group[0]
    operators = Counter(decision.op for decision in group).most_common()
    return row(
        first.rule,
        "yes" if first.quantized else "no",
        formats.count(len(group)),
        ", ".join(f"{op} {amount}" for op, amount in operators),
        first.reason,
    )
