"""Records to pandas DataFrames, one a CSV file; pure.

A frame has its columns even without rows.  Numbers are as recorded, unrounded, in the units of
``quantlab.records``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from quantlab.errors import ConfigError
from quantlab.findings import Plan, Sensitivity, Trial
from quantlab.measured import DevicePerformance, Interval, Percentiles, TargetResult
from quantlab.records import ClassReport, Decision, Layer, Report, TensorReport
from quantlab.reports.reasons import left_out

if TYPE_CHECKING:
    import pandas as pd

Z = 1.959963984540054
"""Standard normal quantile of 97.5 %."""

ENGINE = ("precision", "backend")
SUMMARY = (
    *ENGINE,
    "device",
    "ran",
    "threads",
    "size_bytes",
    "build_seconds",
    "weighted_layers",
    "integer_layers",
)
ACCURACY = ("metric", "unit", "higher_is_better", "samples", "value", "low", "high")
PERFORMANCE = (
    "batch",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "throughput",
    "throughput_low",
    "throughput_high",
    "inferences",
    "rounds",
)

TIMES = ("compute", "h2d", "d2h", "enqueue")
"""What a device's clock tells of an inference."""

DEVICE = (
    *(f"{name}_{p}_ms" for name in TIMES for p in ("p50", "p90", "p99")),
    "throughput_without_transfers",
    "cuda_graph",
    "clocks_mhz_low",
    "clocks_mhz_high",
    "power_watts_low",
    "power_watts_high",
    "warnings",
)


def frames(report: Report) -> dict[str, "pd.DataFrame"]:
    """Return every table by the name of its CSV file, without the ending."""
    return {
        "summary": summary(report),
        "accuracy": accuracy(report),
        "performance": performance(report),
        "tensors": tensors(report),
        "device": device(report),
        "layers": layers(report),
        "left_out": left(report),
        "fusions": fusions(report),
        "facts": facts(report),
        "placement": _records(Decision, report.placement),
        "classes": classes(report),
        "targets": _records(TargetResult, report.targets),
        "analysis": _records(Sensitivity, report.analysis.rows if report.analysis else ()),
        "repair": _records(Trial, report.repair.trials if report.repair else ()),
        "search": searched(report),
    }


def summary(report: Report) -> "pd.DataFrame":
    """Return a row an engine: what it is, its size and how much of it is INT8."""
    rows = [{name: getattr(engine, name) for name in SUMMARY} for engine in report.engines]
    return _frame(SUMMARY, rows)


def accuracy(report: Report) -> "pd.DataFrame":
    """Return a row an engine and metric; delta is paired against FP32."""
    rows = [
        {name: getattr(engine, name) for name in ENGINE}
        | {name: getattr(found, name) for name in ACCURACY}
        | _interval("delta", found.delta)
        for engine in report.engines
        for found in engine.accuracy.values()
    ]
    return _frame((*ENGINE, *ACCURACY, *_interval("delta", None)), rows)


def performance(report: Report) -> "pd.DataFrame":
    """Return a row an engine and batch size."""
    rows = [
        {name: getattr(engine, name) for name in ENGINE}
        | {name: getattr(found, name) for name in PERFORMANCE}
        | _interval("speedup", found.speedup)
        for engine in report.engines
        for found in engine.performance
    ]
    return _frame((*ENGINE, *PERFORMANCE, *_interval("speedup", None)), rows)


def device(report: Report) -> "pd.DataFrame":
    """Return a row an engine and batch size that was timed by its device's own clock."""
    rows = [
        {name: getattr(engine, name) for name in ENGINE} | {"batch": found.batch} | _device(timed)
        for engine in report.engines
        for found in engine.performance
        if (timed := found.device)
    ]
    return _frame((*ENGINE, "batch", *DEVICE), rows)


def _device(found: DevicePerformance) -> dict[str, Any]:
    row: dict[str, Any] = {
        f"{name}_{percentile.name}_ms": getattr(getattr(found, f"{name}_ms"), percentile.name)
        for name in TIMES
        for percentile in fields(Percentiles)
    }
    row |= {name: getattr(found, name) for name in ("throughput_without_transfers", "cuda_graph")}
    for name in ("clocks_mhz", "power_watts"):
        lowest, highest = getattr(found, name) or (None, None)
        row |= {f"{name}_low": lowest, f"{name}_high": highest}
    return row | {"warnings": "; ".join(found.warnings)}


def fusions(report: Report) -> "pd.DataFrame":
    """Return a row a fusion of each engine; its nodes are separated by " + "."""
    rows = [
        {"engine": engine.precision, "layer": found.layer, "kind": found.kind}
        | {"nodes": " + ".join(found.nodes)}
        for engine in report.engines
        for found in engine.fusions
    ]
    return _frame(("engine", "layer", "kind", "nodes"), rows)


def left(report: Report) -> "pd.DataFrame":
    """Return a row a layer of the INT8 engine that ran in floating point, and why."""
    rows = [
        {
            "engine": found.engine.precision,
            "layer": found.name,
            "type": found.layer.type if found.layer else None,
            "precision": found.layer.precision if found.layer else None,
            "reason": found.reason,
        }
        for found in left_out(report)
    ]
    return _frame(("engine", "layer", "type", "precision", "reason"), rows)


def facts(report: Report) -> "pd.DataFrame":
    """Return a row a fact of each engine file."""
    rows = [
        {"engine": engine.precision, "fact": name, "value": value}
        for engine in report.engines
        for name, value in engine.facts.items()
    ]
    return _frame(("engine", "fact", "value"), rows)


def searched(report: Report) -> "pd.DataFrame":
    """Return a row a plan; what it keeps from INT8 reads ``node (type) + node (type)``."""
    found = report.search
    rows = (
        [
            asdict(plan)
            | {
                "floats": " + ".join(f"{node} ({kind})" for node, kind in plan.floats),
                "chosen": plan.label == found.chosen,
            }
            for plan in found.plans
        ]
        if found
        else []
    )
    return _frame((*(field.name for field in fields(Plan)), "chosen"), rows)


def tensors(report: Report) -> "pd.DataFrame":
    """Return a row a tensor, worst first."""
    return _records(TensorReport, worst_first(report.tensors))


def layers(report: Report) -> "pd.DataFrame":
    """Return a row an executed layer of each engine, in order."""
    names = [field.name for field in fields(Layer)]
    rows = [
        {"engine": engine.precision} | asdict(layer)
        for engine in report.engines
        for layer in engine.layers
    ]
    return _frame(("engine", *names), rows)


def classes(report: Report) -> "pd.DataFrame":
    """Return a row a class; top-1 in % by precision with its Wilson interval."""
    precisions = sorted({precision for found in report.classes for precision in found.top1})
    rows = [
        {"index": found.index, "name": found.name, "samples": found.samples}
        | {
            key: value
            for precision, interval in class_intervals(found).items()
            for key, value in _interval(precision, interval).items()
        }
        for found in report.classes
    ]
    names = [name for precision in precisions for name in _interval(precision, None)]
    return _frame(("index", "name", "samples", *names), rows)


def compare(reports: Sequence[Report], names: Sequence[str]) -> "pd.DataFrame":
    """Return a row an engine and batch size of each report, for reading side by side.

    Args:
        reports: at least one.
        names: what each is called, e.g. its run folder; all different.

    Raises:
        ConfigError: two runs have the same name.
    """
    if len(set(names)) != len(names):
        raise ConfigError(f"runs to compare need different names, got {', '.join(names)}")
    rows = [
        {"run": name, "model": report.model.sha256[:12]} | row
        for name, report in zip(names, reports, strict=True)
        for row in _side_by_side(report)
    ]
    keys = dict.fromkeys(key for row in rows for key in row)
    return _frame(("run", "model", *ENGINE, *(key for key in keys)), rows)


def worst_first(found: Iterable[TensorReport]) -> list[TensorReport]:
    """Return tensors with NaN or infinities first, then by rising SQNR, those without last."""
    return sorted(
        found,
        key=lambda tensor: (
            tensor.nan + tensor.inf == 0,
            tensor.sqnr_db is None,
            tensor.sqnr_db or 0.0,
        ),
    )


def classes_by_difference(found: Iterable[ClassReport]) -> list[ClassReport]:
    """Return classes, those first whose FP32 and INT8 values are widest apart."""

    def apart(report: ClassReport) -> float:
        if "fp32" not in report.top1 or "int8" not in report.top1:
            return 0.0
        return abs(report.top1["int8"] - report.top1["fp32"])

    return sorted(found, key=lambda report: (-apart(report), report.index))


def class_intervals(found: ClassReport) -> dict[str, Interval]:
    """Return top-1 in % by precision with its 95 % Wilson interval; none without samples.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if found.samples == 0:
        return {}
    return {name: _wilson(value, found.samples) for name, value in found.top1.items()}


def _wilson(percent: float, samples: int) -> Interval:
    p = percent / 100
    middle = p + Z * Z / (2 * samples)
    half = Z * math.sqrt(max(p * (1 - p), 0.0) / samples + (Z / (2 * samples)) ** 2)
    scale = 100 / (1 + Z * Z / samples)
    low, high = (middle - half) * scale, (middle + half) * scale
    return Interval(percent, min(low, percent), max(high, percent))  # rounding at 0 and 100 %


def _side_by_side(report: Report) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for engine in report.engines:
        facts: dict[str, Any] = {name: getattr(engine, name) for name in (*ENGINE, "size_bytes")}
        for found in engine.accuracy.values():
            facts |= {found.metric: found.value}
            facts |= {f"{found.metric}_low": found.low, f"{found.metric}_high": found.high}
            facts |= _interval(f"{found.metric}_delta", found.delta)
        speeds = [
            {name: getattr(speed, name) for name in PERFORMANCE}
            | _interval("speedup", speed.speedup)
            for speed in engine.performance
        ]
        rows.extend(facts | speed for speed in speeds or [{}])
    return rows


def _interval(name: str, found: Interval | None) -> dict[str, float | None]:
    return {
        name: found.value if found else None,
        f"{name}_low": found.low if found else None,
        f"{name}_high": found.high if found else None,
    }


def _records(kind: type, found: Iterable[Any]) -> "pd.DataFrame":
    return _frame([field.name for field in fields(kind)], [asdict(record) for record in found])


def _frame(names: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(dict.fromkeys(names)))
