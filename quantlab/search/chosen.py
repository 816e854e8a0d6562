"""From a search's record to what is built."""

from typing import cast

from quantlab.findings import Plan, Searched
from quantlab.graph.pins import Kind
from quantlab.records import Precision
from quantlab.search.base import Floats
from quantlab.search.models import patterns


def layers(found: Searched, precision: Precision) -> dict[str, Kind]:
    """Return the types of single nodes in an engine, as ``quantization.layers`` has them.

    They come behind the config's own.  Where a float engine is recommended, the INT8 engine is
    still built, of the best plan that has INT8: a report shows what was passed over.
    """
    plan = engine(found, precision)
    return patterns(cast(Floats, plan.floats)) if plan else {}


def engine(found: Searched, precision: Precision) -> Plan | None:
    """Return the plan of one of the three engines; None where the search had none.

    It is the recommended plan if it is of this precision; else the fastest that meets the target;
    else the most accurate on the front; else the fastest.
    """
    plans = [plan for plan in found.plans if plan.precision == precision]
    recommended = [plan for plan in plans if plan.label == found.chosen]
    meeting = [plan for plan in plans if plan.meets]
    on_front = [plan for plan in reversed(plans) if plan.on_front]  # slower is more accurate
    return next(iter((*recommended, *meeting, *on_front, *plans)), None)
