"""The one target on accuracy that a search is for.

``<metric>_drop``  FP32's value less the plan's on the same samples (the other way round where lower
                   is better), at most the limit
``<metric>``       the plan's value, at least the limit (at most where lower is better)

On n samples that are right or wrong, top-1 moves in steps of 100 / n points: a smaller limit means
that no sample may be lost for which no other is won.  The verdict is the evaluation's, on more
samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import ConfigError
from quantlab.metrics.base import Metric
from quantlab.targets import DROP, SPEEDUP, within

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for a metric, or for what of it is lost.

    Attributes:
        name: in the config.
        limit: of the config.
        metric: that is judged.
        drop: whether the loss against FP32 is limited, not the value.
    """

    name: str
    limit: float
    metric: Metric
    drop: bool

    @property
    def higher_is_better(self) -> bool:
        """Direction of ``value``."""
        return self.metric.higher_is_better and not self.drop

    def value(self, rows: Rows, fp32: Rows | None) -> float:
        """Return what is limited.

        Args:
            rows: (n, k) the plan's scores.
            fp32: (n, k) FP32's scores on the same samples; only a drop needs them.
        """
        value = float(self.metric.value(rows))
        if not self.drop:
            return value
        assert fp32 is not None  # noqa: S101  a metric with a drop compares with labels
        lost = float(self.metric.value(fp32)) - value
        return lost if self.metric.higher_is_better else -lost

    def loss(self, value: float) -> float:
        """Return ``value`` as something of which less is better."""
        return -value if self.higher_is_better else value

    def meets(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return within(value, self.limit, at_least=self.higher_is_better)


def sought(targets: Mapping[str, float], metrics: Sequence[Metric]) -> Target:
    """Return the target that a search is for; ``targets.check`` let all of them pass.

    Raises:
        ConfigError: no target is on accuracy, or several are.
    """
    by_name = {metric.name: metric for metric in metrics}
    names = [name for name in targets if name != SPEEDUP]
    if not names:
        given = f"has {', '.join(targets)} alone" if targets else "is empty"
        raise ConfigError(
            f"'search: true' looks for the fastest plan that meets a target on accuracy, and "
            f"'targets' {given}; add one, such as 'top1_drop: 0.5' or 'cosine: 0.999'",
            "targets",
        )
    if len(names) > 1:
        raise ConfigError(
            f"'search: true' looks for one target on accuracy, and 'targets' has "
            f"{', '.join(names)}; keep the one that matters",
            "targets",
        )
    name = names[0]
    drop = name not in by_name
    return Target(name, targets[name], by_name[name.removesuffix(DROP)], drop)


def unlabelled(target: Target) -> ConfigError:
    """Return the error for a target whose metric needs labels, where the samples have none."""
    return ConfigError(
        f"target {target.name!r} compares with labels, and the calibration samples, on which "
        "'search: true' judges, have none; give the calibration dataset labels, or choose a target "
        "on a metric that compares with FP32: cosine, agreement, sqnr",
        target.name,
    )
