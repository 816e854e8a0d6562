"""The report in a sentence: how fast, how accurate, within its targets or not.

The engine that is judged is the narrowest one there is: INT8, else FP16.  Speed is told at the
largest batch size, accuracy by the first metric, and neither without its 95 % interval.
"""

from dataclasses import dataclass

from quantlab.findings import Plan, Searched
from quantlab.measured import Accuracy, Interval, Performance, TargetResult
from quantlab.records import EngineReport, Report
from quantlab.reports import formats
from quantlab.reports.blocks import Tone
from quantlab.targets import DROP, SPEEDUP


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a target was judged by.

    Attributes:
        measured: the value with its interval; without width where no interval is known.
        unit: of the value and the limit.
        at_least: the limit is the least allowed value, not the most.
        where: at which batch size, "" if it does not matter.
    """

    measured: Interval
    unit: str
    at_least: bool
    where: str = ""


def verdict(report: Report) -> str:
    """Return ``sentences`` as one text; the same words end the command line's output."""
    return " ".join(sentences(report))


def sentences(report: Report) -> tuple[str, ...]:
    """Return what was found, how far INT8 ran if not everywhere, and what the search says."""
    search = report.search
    searched = (recommendation(search, report), ended(search.reason)) if search else ()
    return (*_measured(judged(report), report), *filter(None, searched))


def _measured(engine: EngineReport | None, report: Report) -> tuple[str, ...]:
    if engine is None:
        return ("No engine was measured.",)
    findings = [text for text in (_speed(engine), _accuracy(engine)) if text]
    said = " and ".join(findings) if findings else "was built and not measured"
    told = (f"{formats.label(engine)} {said}{_targets(report)}.", _integer(engine))
    return tuple(sentence for sentence in told if sentence)


def tone(report: Report) -> Tone:
    """Return "bad" if a target was missed or INT8 did not run, "good" if all targets were met.

    It is never "good" where the search recommends another type than INT8.
    """
    engine, search = judged(report), report.search
    missed = any(not target.met for target in report.targets) or (search and not search.met)
    if missed or (engine and _nothing_ran(engine)):
        return "bad"
    return "good" if report.targets and not (search and without_int8(search)) else ""


def judged(report: Report) -> EngineReport | None:
    """Return the engine that the verdict is about, None without engines."""
    for precision in ("int8", "fp16", "fp32"):
        for engine in report.engines:
            if engine.precision == precision:
                return engine
    return None


def largest_batch(engine: EngineReport) -> Performance | None:
    """Return the measurement at the largest batch size, None if there is none."""
    return max(engine.performance, key=lambda found: found.batch, default=None)


def evidence(target: TargetResult, report: Report) -> Evidence:
    """Return the value and interval behind a target, whose names ``quantlab.targets`` defines."""
    engine = judged(report)
    bare = Interval(target.value, target.value, target.value)
    if engine is None:
        return Evidence(bare, "", at_least=False)
    if target.name == SPEEDUP:
        ratios = [(found.speedup, found.batch) for found in engine.performance if found.speedup]
        if not ratios:
            return Evidence(bare, formats.TIMES, at_least=True)
        least, batch = min(ratios, key=lambda pair: pair[0].value)
        return Evidence(least, formats.TIMES, at_least=True, where=f"(least, at batch {batch})")
    accuracy = engine.accuracy.get(target.name.removesuffix(DROP))
    if accuracy is None:
        return Evidence(bare, "", at_least=False)
    if target.name.endswith(DROP):
        return Evidence(_loss(accuracy) or bare, formats.delta_unit(accuracy.unit), at_least=False)
    measured = value_interval(accuracy) or bare
    return Evidence(measured, accuracy.unit, at_least=accuracy.higher_is_better)


def chosen(search: Searched) -> Plan | None:
    """Return the recommended plan, None if it is not among the plans."""
    return next((plan for plan in search.plans if plan.label == search.chosen), None)


def without_int8(search: Searched) -> bool:
    """Whether the recommended plan computes nothing in INT8."""
    plan = chosen(search)
    return plan is not None and plan.macs_int8 == 0


def judged_by(search: Searched, report: Report) -> tuple[str, bool]:
    """Return the unit of the search's accuracies, and whether more is better."""
    metric = search.target.removesuffix(DROP)
    found = next((e.accuracy[metric] for e in report.engines if metric in e.accuracy), None)
    unit = found.unit if found else ""
    if search.target.endswith(DROP):
        return formats.delta_unit(unit), False
    return unit, found is None or found.higher_is_better


def recommendation(search: Searched, report: Report) -> str:
    """Return what the search recommends and whether it meets the target, in a sentence."""
    unit, at_least = judged_by(search, report)
    plan = chosen(search)
    values = [search.limit, *([plan.accuracy] if plan else [])]
    decimals = formats.metric_places("%" if unit == "pp" else unit, values)
    limit = formats.with_unit(formats.fixed(search.limit, decimals), unit)
    target = f"{search.target} {'≥' if at_least else '≤'} {limit}"
    refused = "INT8 is not recommended. " if without_int8(search) else ""
    if search.met:
        head = f"{refused}The search recommends {search.chosen}, which meets {target}"
    else:
        head = f"{refused}No plan meets {target}: the best that the search found is {search.chosen}"
    if plan is None:
        return f"{head}."
    value = formats.with_unit(formats.fixed(plan.accuracy, decimals), unit)
    speed = f"{formats.number(plan.latency_ms)} ms at batch {formats.count(search.batch)}"
    bounds = formats.interval(plan.low, plan.high, formats.places(plan.latency_ms, 3))
    int8 = f", {formats.share(plan.macs_int8)} of the MACs in INT8" if plan.macs_int8 else ""
    return f"{head}: {value}, {speed} ({plan.speed}, {bounds.strip('()')}){int8}."


def ended(text: str) -> str:
    """Return a sentence with its full stop."""
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def value_interval(accuracy: Accuracy) -> Interval | None:
    """Return a metric's value with its interval, None for an engine compared with itself."""
    if accuracy.value is None or accuracy.low is None or accuracy.high is None:
        return None
    return Interval(accuracy.value, accuracy.low, accuracy.high)


def _loss(accuracy: Accuracy) -> Interval | None:
    delta = accuracy.delta
    if delta is None or not accuracy.higher_is_better:
        return delta
    return Interval(-delta.value, -delta.high, -delta.low)


def _speed(engine: EngineReport) -> str:
    found = largest_batch(engine)
    if found is None:
        return ""
    if found.speedup is None:
        bounds = formats.rate_interval(found)
        return f"runs {formats.rate(found)} samples/s at batch {found.batch} {bounds}"
    speedup = found.speedup
    return (
        f"is {formats.ratio(speedup.value)} as fast as FP32 at batch {found.batch} "
        f"{formats.interval(speedup.low, speedup.high, 2)}"
    )


def _accuracy(engine: EngineReport) -> str:
    for found in engine.accuracy.values():
        loss = _loss(found)
        if loss is not None:
            return _changed(found, loss)
    for found in engine.accuracy.values():
        value = value_interval(found)
        if value is not None:
            decimals = formats.metric_places(found.unit, formats.bounds(value))
            text = formats.with_unit(formats.fixed(value.value, decimals), found.unit)
            return (
                f"reaches {text} {found.metric} {formats.interval(value.low, value.high, decimals)}"
            )
    return ""


def _changed(found: Accuracy, loss: Interval) -> str:
    unit = "points" if found.unit == "%" else found.unit
    gained = loss.value < 0
    shown = Interval(-loss.value, -loss.high, -loss.low) if gained else loss
    decimals = formats.metric_places(found.unit, formats.bounds(loss))
    if loss.low <= 0 <= loss.high:
        change = formats.with_unit(formats.fixed(-loss.value, decimals, signed=True), unit)
        bounds = formats.interval(-loss.high, -loss.low, decimals, signed=True).strip("()")
        return f"its {found.metric} is not measurably different ({change}, {bounds})"
    verb = "gains" if gained else "loses"
    amount = formats.with_unit(formats.fixed(shown.value, decimals), unit)
    of = f" of {found.metric}" if found.higher_is_better else f" in {found.metric}"
    return f"{verb} {amount}{of} {formats.interval(shown.low, shown.high, decimals)}"


def _targets(report: Report) -> str:
    if not report.targets:
        return ""
    missed = [
        f"{target.name} {evidence(target, report).where}".strip()
        for target in report.targets
        if not target.met
    ]
    return f": misses its target for {', '.join(missed)}" if missed else ": within targets"


def _nothing_ran(engine: EngineReport) -> bool:
    return engine.precision == "int8" and engine.weighted_layers > 0 and engine.integer_layers == 0


def _integer(engine: EngineReport) -> str:
    if engine.precision != "int8" or engine.integer_layers >= engine.weighted_layers:
        return ""
    if _nothing_ran(engine):
        return "But no convolution or matrix product ran in INT8."
    return (
        f"{engine.integer_layers} of {formats.count(engine.weighted_layers)} convolutions and "
        "matrix products ran in INT8."
    )
