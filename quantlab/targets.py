"""Targets: the limits that a config states for INT8, and whether they were met.

``<metric>_drop``  most that INT8 may lose against FP32, in the metric's unit (points for top1)
``<metric>``       least value of INT8, or most for metrics where lower is better
``speedup``        least throughput of INT8 over FP32, at the batch size where it is smallest
"""

from collections.abc import Mapping, Sequence

from quantlab.errors import ConfigError
from quantlab.records import EngineReport, TargetResult
from quantlab.registry import nearest

SPEEDUP = "speedup"
DROP = "_drop"


def check_names(targets: Mapping[str, float], metrics: Sequence[str]) -> None:
    """Raise ConfigError for a target that nothing in the config measures."""
    known = [SPEEDUP, *metrics, *(f"{name}{DROP}" for name in metrics)]
    for name in targets:
        if name not in known:
            raise ConfigError(
                f"unknown target {name!r}; {nearest(name, known)}; "
                "a metric must be listed in 'evaluation.metrics'",
                name,
            )


def judge(
    targets: Mapping[str, float], engines: Sequence[EngineReport]
) -> tuple[TargetResult, ...]:
    """Return each target with what came.

    Raises:
        ConfigError: a target needs a value that was not measured, e.g. without fp32.
    """
    int8 = next((engine for engine in engines if engine.precision == "int8"), None)
    if targets and int8 is None:
        raise ConfigError("targets are about INT8; add int8 to 'engines.precisions'")
    return tuple(_one(name, limit, int8) for name, limit in targets.items() if int8)


def _one(name: str, limit: float, int8: EngineReport) -> TargetResult:
    if name == SPEEDUP:
        ratios = [p.speedup.value for p in int8.performance if p.speedup]
        if not ratios:
            raise ConfigError("target 'speedup' needs fp32 in 'engines.precisions' and a benchmark")
        return TargetResult(name, limit, min(ratios), met=min(ratios) >= limit)
    accuracy = int8.accuracy[name.removesuffix(DROP)]
    if name.endswith(DROP):
        if accuracy.delta is None:
            raise ConfigError(f"target {name!r} needs fp32 in 'engines.precisions' to compare with")
        lost = -accuracy.delta.value if accuracy.higher_is_better else accuracy.delta.value
        return TargetResult(name, limit, lost, met=lost <= limit)
    if accuracy.value is None:
        raise ConfigError(f"target {name!r} has no value for INT8")
    met = accuracy.value >= limit if accuracy.higher_is_better else accuracy.value <= limit
    return TargetResult(name, limit, accuracy.value, met=met)
