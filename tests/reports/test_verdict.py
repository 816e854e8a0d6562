"""The verdict says what was found, for whichever engines there are, and never without interval."""

from dataclasses import replace

import pytest

from quantlab.measured import Accuracy, Interval, TargetResult
from quantlab.records import EngineReport, Report
from quantlab.reports.verdict import evidence, tone, verdict
from tests.reports.sample import sample

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def only(*engines: EngineReport, targets: tuple[TargetResult, ...] = ()) -> Report:
    return replace(sample(), engines=engines, targets=targets, search=None)


def int8(**changes: object) -> EngineReport:
    return replace(sample().engines[2], **changes)  # type: ignore[arg-type]  # names are checked


def accuracy(
    delta: Interval | None, *, higher: bool = True, unit: str = "%"
) -> dict[str, Accuracy]:
    return {"m": Accuracy("m", 90.0, 89.0, 91.0, delta, unit, higher, 100)}


def test_sample() -> None:
    assert verdict(sample()) == (
        f"INT8 is 2.10{TIMES} as fast as FP32 at batch 32 (2.02 to 2.19) and its top1 is not "
        f"measurably different ({MINUS}0.06 points, {MINUS}0.17 to +0.02): within targets. "
        "15 of 17 convolutions and matrix products ran in INT8. "
        "The search recommends int8 but 2, which meets top1_drop ≤ 0.50 pp: 0.35 pp, 30.4 ms at "
        "batch 8 (measured, 29.9 to 31.0), 93.0 % of the MACs in INT8. It is the fastest plan "
        "that meets the target, and 1.96 times as fast as fp16."
    )
    assert tone(sample()) == "good"


def searched(**changes: object) -> Report:
    found = sample().search
    assert found is not None
    return replace(sample(), search=replace(found, **changes))  # type: ignore[arg-type]  # as int8


def test_int8_that_the_search_does_not_recommend() -> None:
    report = searched(chosen="fp16", reason="INT8 is slower than FP16 here")
    told = verdict(report)
    assert (
        "INT8 is not recommended. The search recommends fp16, which meets top1_drop ≤ 0.50 pp: "
        "0.01 pp, 59.6 ms at batch 8 (measured, 58.4 to 61.0). INT8 is slower than FP16 here."
    ) in told
    assert tone(report) == ""


def test_a_target_that_no_plan_meets() -> None:
    report = searched(chosen="int8 but 6", met=False, limit=0.02, reason="")
    assert verdict(report).endswith(
        " No plan meets top1_drop ≤ 0.02 pp: the best that the search found is int8 but 6: "
        "0.03 pp, 33.4 ms at batch 8 (modelled, 31.4 to 35.7), 79.0 % of the MACs in INT8."
    )
    assert tone(report) == "bad"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("sqnr", "meets sqnr ≥ 0.50 dB"),
        ("top1", "meets top1 ≥ 0.50 %"),
        ("unknown", "meets unknown ≥ 0.5000"),
        ("unknown_drop", "meets unknown_drop ≤ 0.5000"),
    ],
)
def test_the_direction_and_unit_of_a_searched_target(target: str, expected: str) -> None:
    assert expected in verdict(searched(target=target))


def test_a_recommended_plan_that_is_not_listed_is_still_named() -> None:
    report = searched(chosen="other", reason="so")
    assert verdict(report).endswith(
        "The search recommends other, which meets top1_drop ≤ 0.50 pp. so."
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (accuracy(Interval(0.3, 0.1, 0.5)), "gains 0.30 points of m (0.10 to 0.50)"),
        (
            accuracy(Interval(0.3, 0.1, 0.5), higher=False, unit=""),
            "loses 0.3000 in m (0.1000 to 0.5000)",
        ),
        (accuracy(None, unit="dB"), "reaches 90.0 dB m (89.0 to 91.0)"),
        ({}, "INT8 was built and not measured."),
    ],
)
def test_accuracy(found: dict[str, Accuracy], expected: str) -> None:
    assert expected in verdict(only(int8(accuracy=found, performance=())))


def test_without_fp32_the_rate_is_told() -> None:
    speed = replace(sample().engines[2].performance[0], speedup=None)
    told = verdict(only(int8(performance=(speed,), accuracy={})))
    assert told.startswith("INT8 runs 126.4 samples/s at batch 1 (123.1 to 129.2).")


def test_no_engine() -> None:
    assert verdict(only()) == "No engine was measured."
    assert tone(only()) == ""


def test_fp16_is_judged_where_there_is_no_int8() -> None:
    assert verdict(only(*sample().engines[:2])).startswith("FP16 is 1.02")


def test_int8_that_did_not_run_is_bad_news() -> None:
    report = only(int8(integer_layers=0))
    assert verdict(report).endswith("But no convolution or matrix product ran in INT8.")
    assert tone(report) == "bad"


def test_a_missed_target_is_named() -> None:
    missed = TargetResult("top1_drop", 0.01, 0.06, met=False)
    report = replace(sample(), targets=(missed, *sample().targets))
    assert ": misses its target for top1_drop." in verdict(report)
    assert tone(report) == "bad"


@pytest.mark.parametrize(
    ("name", "engine", "interval", "unit", "at_least"),
    [
        ("speedup", int8(), Interval(2.1**0.6, 2.1**0.6 * 0.962, 2.1**0.6 * 1.041), TIMES, True),
        ("speedup", int8(performance=()), Interval(5, 5, 5), TIMES, True),
        ("top1_drop", int8(), Interval(0.06, -0.02, 0.17), "pp", False),
        ("sqnr", int8(), Interval(31.24, 31.24 - 0.4, 31.24 + 0.3), "dB", True),
        ("m", int8(accuracy=accuracy(None, higher=False)), Interval(90, 89, 91), "%", False),
        ("m_drop", int8(accuracy=accuracy(None)), Interval(5, 5, 5), "pp", False),
        ("unknown", int8(), Interval(5, 5, 5), "", False),
    ],
)
def test_evidence_of_targets(
    name: str, engine: EngineReport, interval: Interval, unit: str, *, at_least: bool
) -> None:
    found = evidence(TargetResult(name, 1.0, 5, met=True), only(engine))
    measured = found.measured
    assert (measured.value, measured.low, measured.high) == pytest.approx(
        (interval.value, interval.low, interval.high)
    )
    assert (found.unit, found.at_least) == (unit, at_least)


def test_evidence_without_engines_is_the_value_alone() -> None:
    found = evidence(TargetResult("top1_drop", 1.0, 5, met=True), only())
    assert found.measured == Interval(5, 5, 5)
