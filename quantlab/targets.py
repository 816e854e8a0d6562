"""Targets: the limits that a config states for INT8, and whether they were met.

``<metric>_drop``  most that INT8 may lose against FP32, in the metric's unit (points for top1)
``<metric>``       least value of INT8, or most for metrics where lower is better
``speedup``        least throughput of INT8 over FP32, at the batch size where it is smallest
"""

from collections.abc import Collection, Mapping, Sequence

from quantlab.errors import ConfigError
from quantlab.measured import TargetResult
from quantlab.records import EngineReport
from quantlab.registry import nearest

SPEEDUP = "speedup"
DROP = "_drop"

ROUNDING = 1e-9
"""Values are means and drops differences of them, so a limit that is met exactly can be missed by
rounding."""


def check(
    targets: Mapping[str, float],
    metrics: Mapping[str, str],
    *,
    precisions: Collection[str],
    benchmark: bool,
    search: bool = False,
) -> None:
    """Raise ConfigError for a target that nothing in the config measures.

    Args:
        targets: limit by name.
        metrics: what each measured metric compares with, "labels" or "fp32", by name.
        precisions: engines that are built.
        benchmark: whether speed is measured.
        search: whether the layers in INT8 are searched for an accuracy.
    """
    if search and not any(name != SPEEDUP for name in targets):
        raise ConfigError(
            "'search: true' needs a target for the accuracy, such as top1_drop: 0.5 or "
            "cosine: 0.999; without one, all of the model is best in INT8"
        )
    dropping = [f"{name}{DROP}" for name, other in metrics.items() if other != "fp32"]
    known = [SPEEDUP, *metrics, *dropping]
    for name in targets:
        if name not in known:
            raise ConfigError(
                f"unknown target {name!r}; {nearest(name, known)}; "
                "a metric must be listed in 'evaluation.metrics'",
                name,
            )
        if name == SPEEDUP and not benchmark:
            raise ConfigError(f"target {name!r} needs a 'benchmark', which is null", name)
        needed = ("int8", "fp32") if name == SPEEDUP or name in dropping else ("int8",)
        for precision in needed:
            if precision not in precisions:
                raise ConfigError(
                    f"target {name!r} needs {precision} in 'engines.precisions'", name
                )


def judge(
    targets: Mapping[str, float], engines: Sequence[EngineReport]
) -> tuple[TargetResult, ...]:
    """Return each target, which ``check`` let pass, with what came."""
    return tuple(
        _one(name, limit, engine)
        for engine in engines
        if engine.precision == "int8"
        for name, limit in targets.items()
    )


def _one(name: str, limit: float, int8: EngineReport) -> TargetResult:
    if name == SPEEDUP:
        least = min(speed.speedup.value for speed in int8.performance if speed.speedup)
        return TargetResult(name, limit, least, met=least >= limit)
    if name in int8.accuracy:
        value, at_least = int8.accuracy[name].value, int8.accuracy[name].higher_is_better
        assert value is not None  # noqa: S101  None is for an engine compared with itself
        return TargetResult(name, limit, value, met=within(value, limit, at_least=at_least))
    accuracy = int8.accuracy[name.removesuffix(DROP)]
    assert accuracy.delta is not None  # noqa: S101  check() asked for fp32
    lost = -accuracy.delta.value if accuracy.higher_is_better else accuracy.delta.value
    return TargetResult(name, limit, lost, met=within(lost, limit, at_least=False))


def within(value: float, limit: float, *, at_least: bool) -> bool:
    """Whether an accuracy keeps its limit."""
    return value >= limit - ROUNDING if at_least else value <= limit + ROUNDING
