"""The front of accuracy against latency, and which plan is recommended.

A plan is on the front if no other is at least as fast and as accurate, and better in one of both.

Recommended is the fastest plan that meets the target.  Of plans whose intervals reach the fastest
one's latency, and which are within ALIKE of it, the one with the most MACs in INT8 is taken.
A plan with INT8 is passed over unless it is faster than every float engine that meets the target,
or than every one at all where none does.  Where nothing meets the target, the most accurate plan is
the best that was found.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from quantlab.findings import Plan
from quantlab.search.target import Target
from quantlab.visible import figure

T = TypeVar("T")

ALIKE = 1.03
"""Latencies within this factor are not told apart where the intervals do not."""


def front(points: Sequence[T], ms: Callable[[T], float], loss: Callable[[T], float]) -> list[T]:
    """Return the points on the front, the fastest first; of equal ones the first given."""
    found: list[T] = []
    for point in sorted(points, key=lambda p: (ms(p), loss(p))):
        if not found or loss(point) < loss(found[-1]):
            found.append(point)
    return found


def recommended(plans: Sequence[Plan], target: Target) -> tuple[Plan, str]:
    """Return the recommended plan, and why in a sentence without a full stop.

    Args:
        plans: at least one without INT8.
        target: that they were judged by.
    """
    floats = [plan for plan in plans if plan.precision != "int8"]
    serving = [plan for plan in floats if plan.meets] or floats
    bar = min(serving, key=lambda plan: plan.latency_ms)
    useful = [p for p in plans if p.precision == "int8" and p.latency_ms < bar.latency_ms]
    meeting = [plan for plan in (*useful, *floats) if plan.meets]
    if not meeting:
        best = min((*useful, *floats), key=lambda p: (target.loss(p.accuracy), p.latency_ms))
        return best, (
            f"no plan meets {target.name} {figure(target.limit)}; of those worth their latency "
            f"{best.label} comes nearest with {figure(best.accuracy)}"
        )
    best = _fastest(meeting)
    if best.precision != "int8":
        return best, _why_float(best, plans, target)
    return best, (
        f"{best.label} meets {target.name} {figure(target.limit)} with {figure(best.accuracy)}, "
        f"has {best.macs_int8:.0%} of the MACs in INT8 and is "
        f"{bar.latency_ms / best.latency_ms:.2f} times as fast as {bar.label}"
    )


def _fastest(meeting: Sequence[Plan]) -> Plan:
    """Return the one with the most INT8 of those that speed does not tell apart."""
    first = min(meeting, key=lambda plan: plan.latency_ms)
    limit = ALIKE * first.latency_ms
    alike = [p for p in meeting if p.low <= first.latency_ms and p.latency_ms <= limit]
    return max(alike, key=lambda plan: (plan.macs_int8, -plan.latency_ms))


def _why_float(best: Plan, plans: Sequence[Plan], target: Target) -> str:
    mixed = [plan for plan in plans if plan.precision == "int8"]
    meeting = [plan for plan in mixed if plan.meets]
    if not meeting:
        nearest = min(mixed, key=lambda plan: (target.loss(plan.accuracy), plan.latency_ms))
        return (
            f"no plan with INT8 meets {target.name} {figure(target.limit)} ({nearest.label} comes "
            f"nearest with {figure(nearest.accuracy)}), so {best.label} is recommended"
        )
    fastest = min(meeting, key=lambda plan: plan.latency_ms)
    return (
        f"INT8 is no faster: {fastest.label}, the fastest plan with INT8 that meets {target.name} "
        f"{figure(target.limit)}, takes {fastest.latency_ms:.4g} ms, {best.label} "
        f"{best.latency_ms:.4g} ms"
    )
