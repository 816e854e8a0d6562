"""Frames hold the records, unrounded; what is derived agrees with its source."""

import io
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from quantlab.errors import ConfigError
from quantlab.records import ClassReport, Report
from quantlab.reports import tables
from tests.reports.sample import HOSTILE, sample
from tests.reports.sample_gpu import gpu_sample
from tests.reports.strange import reports


def test_frames_of_the_sample_hold_its_numbers() -> None:
    found = tables.frames(sample())
    assert {name: len(frame) for name, frame in found.items()} == {
        "summary": 3,
        "accuracy": 6,
        "performance": 9,
        "device": 0,
        "tensors": 30,
        "layers": 75,
        "left_out": 2,
        "fusions": 0,
        "facts": 0,
        "placement": 19,
        "classes": 10,
        "targets": 2,
        "analysis": 49,
        "repair": 6,
        "search": 9,
    }
    assert found["summary"].set_index("precision").loc["int8", "size_bytes"] == 11_390_000
    top1 = found["accuracy"].query("metric == 'top1' and precision == 'int8'").iloc[0]
    assert (top1.delta, top1.delta_low, top1.delta_high) == pytest.approx((-0.06, -0.17, 0.02))
    fast = found["performance"].query("batch == 32 and precision == 'int8'").iloc[0]
    assert fast.speedup_low < fast.speedup < fast.speedup_high


def test_frames_of_a_gpu_hold_its_numbers() -> None:
    found = tables.frames(gpu_sample())
    assert {name: len(found[name]) for name in ("device", "fusions", "left_out", "facts")} == {
        "device": 9,
        "fusions": 50,
        "left_out": 3,
        "facts": 29,
    }
    row = found["device"].query("batch == 8 and precision == 'int8'").iloc[0]
    timed = next(p.device for p in gpu_sample().engines[2].performance if p.batch == 8)
    assert timed is not None
    assert (row.compute_p99_ms, row.h2d_p50_ms) == (timed.compute_ms.p99, timed.h2d_ms.p50)
    assert (row.clocks_mhz_low, row.power_watts_high) == (1605, 146.0)


@settings(max_examples=30)
@given(reports())
def test_every_frame_has_its_columns_and_rows(report: Report) -> None:
    found = tables.frames(report)
    assert found.keys() == tables.frames(sample()).keys()
    assert all(len(frame.columns) > 0 for frame in found.values())
    assert len(found["tensors"]) == len(report.tensors)
    assert len(found["layers"]) == sum(len(engine.layers) for engine in report.engines)


def test_csv_keeps_names_and_numbers() -> None:
    text = tables.tensors(sample()).to_csv(index=False)
    back = pd.read_csv(io.StringIO(text))
    assert HOSTILE in set(back["name"])
    assert back["threshold"].tolist() == tables.tensors(sample())["threshold"].tolist()


def test_worst_first_puts_bad_values_then_noise_then_the_exact() -> None:
    base = sample().tensors[0]
    rows = [
        replace(base, name="exact", sqnr_db=None),
        replace(base, name="good", sqnr_db=40.0),
        replace(base, name="noisy", sqnr_db=-3.0),
        replace(base, name="infinite", sqnr_db=50.0, inf=1),
    ]
    assert [row.name for row in tables.worst_first(rows)] == ["infinite", "noisy", "good", "exact"]


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_class_intervals_are_wilsons(hits: tuple[int, int]) -> None:
    right, samples = hits
    report = ClassReport(0, "a", samples, {"int8": 100 * right / samples})
    found = tables.class_intervals(report)["int8"]
    expected = binomtest(right, samples).proportion_ci(method="wilson")
    assert found.low == pytest.approx(100 * expected.low, abs=1e-6)
    assert found.high == pytest.approx(100 * expected.high, abs=1e-6)
    assert found.low <= found.value <= found.high


def test_a_class_without_samples_has_no_interval() -> None:
    assert tables.class_intervals(ClassReport(0, "a", 0, {"int8": 0.0})) == {}


def test_classes_are_ordered_by_difference() -> None:
    rows = [
        ClassReport(0, "only fp32", 9, {"fp32": 50.0}),
        ClassReport(1, "near", 9, {"fp32": 50.0, "int8": 51.0}),
        ClassReport(2, "far", 9, {"fp32": 50.0, "int8": 40.0}),
    ]
    assert [row.name for row in tables.classes_by_difference(rows)] == ["far", "near", "only fp32"]


def test_compare_puts_runs_below_each_other() -> None:
    first, second = (
        sample(),
        replace(sample(), engines=(replace(sample().engines[0], performance=()),)),
    )
    frame = tables.compare([first, second], ["a", "b"])
    assert frame["run"].tolist() == ["a"] * 9 + ["b"]
    assert {"top1", "top1_low", "top1_high", "top1_delta_low", "sqnr", "speedup"} <= set(frame)
    assert frame.iloc[-1][["precision", "top1"]].tolist() == ["fp32", 93.21]
    assert pd.isna(frame.iloc[-1]["throughput"])


def test_compare_wants_different_names() -> None:
    with pytest.raises(ConfigError, match="different names, got a, a"):
        tables.compare([sample(), sample()], ["a", "a"])
