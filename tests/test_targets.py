"""Targets are refused while they are only written down, and judged by direction and limit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError
from quantlab.measured import Accuracy, Interval, Performance
from quantlab.records import EngineReport
from quantlab.targets import ROUNDING, check, judge

METRICS = {"top1": "labels", "mse": "labels", "cosine": "fp32"}
FINITE = st.floats(-1e6, 1e6)


def accuracy(name: str, value: float, delta: float | None, *, higher: bool = True) -> Accuracy:
    change = None if delta is None else Interval(delta, delta - 1, delta + 1)
    return Accuracy(name, value, value - 1, value + 1, change, "", higher, samples=100)


def speed(batch: int, speedup: float) -> Performance:
    ratio = Interval(speedup, speedup - 0.1, speedup + 0.1)
    return Performance(batch, 1.0, 1.0, 1.0, 100.0, 99.0, 101.0, ratio, 10, 2)


def int8(
    accuracies: tuple[Accuracy, ...] = (), speeds: tuple[Performance, ...] = ()
) -> EngineReport:
    return EngineReport(
        precision="int8",
        backend="reference",
        device="CPU",
        size_bytes=1,
        build_seconds=0.0,
        ran="i8",
        threads=1,
        accuracy={found.metric: found for found in accuracies},
        performance=speeds,
        weighted_layers=1,
        integer_layers=1,
        float_layers=(),
        layers=(),
        notes=(),
    )


@pytest.mark.parametrize(
    ("target", "precisions", "benchmark", "message"),
    [
        ("top1", ("int8",), False, None),
        ("cosine", ("fp32", "int8"), False, None),
        ("top1_drop", ("fp32", "int8"), False, None),
        ("speedup", ("fp32", "int8"), True, None),
        ("top5_drop", ("fp32", "int8"), True, "'top5_drop'; did you mean 'top1_drop'"),
        ("cosine_drop", ("fp32", "int8"), True, "unknown target 'cosine_drop'"),
        ("latency", ("fp32", "int8"), True, "unknown target 'latency'; choose from cosine, mse"),
        ("speedup", ("fp32", "int8"), False, "'speedup' needs a 'benchmark'"),
        ("speedup", ("int8",), True, "'speedup' needs fp32 in 'engines.precisions'"),
        ("top1_drop", ("int8",), True, "'top1_drop' needs fp32"),
        ("top1", ("fp32", "fp16"), True, "'top1' needs int8"),
    ],
)  # fmt: skip
def test_what_nothing_measures_is_refused(
    target: str, precisions: tuple[str, ...], *, benchmark: bool, message: str | None
) -> None:
    def checked() -> None:
        check({target: 1.0}, METRICS, precisions=precisions, benchmark=benchmark)

    if message is None:
        checked()
        return
    with pytest.raises(ConfigError, match=message) as raised:
        checked()
    assert raised.value.key == target


@given(value=FINITE, limit=FINITE, higher=st.booleans())
def test_a_metric_is_a_least_value_or_a_most(value: float, limit: float, *, higher: bool) -> None:
    (found,) = judge({"m": limit}, [int8((accuracy("m", value, None, higher=higher),))])
    assert found.value == value
    assert found.met == (value >= limit - ROUNDING if higher else value <= limit + ROUNDING)


@given(delta=FINITE, limit=FINITE, higher=st.booleans())
def test_a_drop_is_what_was_lost(delta: float, limit: float, *, higher: bool) -> None:
    (found,) = judge({"m_drop": limit}, [int8((accuracy("m", 50.0, delta, higher=higher),))])
    assert found.value == (-delta if higher else delta)
    assert found.met == (found.value <= limit + ROUNDING)


def test_a_limit_that_is_met_exactly_is_met() -> None:
    (found,) = judge({"m_drop": 0.3}, [int8((accuracy("m", 90.1, 90.1 - 90.4, higher=True),))])
    assert found.value > 0.3, "by rounding alone"
    assert found.met


@given(st.lists(st.floats(0.1, 10), min_size=1), st.floats(0.1, 10))
def test_the_smallest_speedup_counts(ratios: list[float], limit: float) -> None:
    speeds = tuple(speed(2**i, ratio) for i, ratio in enumerate(ratios))
    (found,) = judge({"speedup": limit}, [int8((), speeds)])
    assert found.value == min(ratios)
    assert found.met == (min(ratios) >= limit)


def test_only_int8_is_judged_and_no_target_is_no_result() -> None:
    other = replace(int8((accuracy("top1", 1.0, None),)), precision="fp16")
    engine = int8((accuracy("top1", 99.0, None),))
    assert [target.value for target in judge({"top1": 5.0}, [other, engine])] == [99.0]
    assert judge({}, [engine]) == ()


def test_a_metric_whose_name_ends_like_a_drop_is_itself() -> None:
    (found,) = judge(
        {"sound_drop": 3.0}, [int8((accuracy("sound_drop", 2.0, -1.0, higher=False),))]
    )
    assert (found.value, found.met) == (2.0, True)
