"""What a search is for: one target on accuracy, and when it is met."""

import numpy as np
import pytest
from numpy.typing import NDArray

from quantlab.errors import ConfigError
from quantlab.metrics import METRICS, Metric
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.mse import Mse
from quantlab.metrics.psnr import Psnr
from quantlab.metrics.top1 import Top1
from quantlab.search.target import Target, sought, unlabelled

LISTED: list[Metric] = [Top1(), Cosine(), Mse(), Psnr()]


def rows(*hits: float) -> NDArray[np.float64]:
    return np.array(hits, np.float64)[:, None]


@pytest.mark.parametrize(
    ("targets", "metric", "drop"),
    [
        ({"top1_drop": 0.5}, "top1", True),
        ({"speedup": 2.0, "cosine": 0.999}, "cosine", False),
        ({"psnr_drop": 0.05}, "psnr", True),
        ({"top1": 90.0}, "top1", False),
    ],
)
def test_the_target_on_accuracy_is_found(
    targets: dict[str, float], metric: str, *, drop: bool
) -> None:
    found = sought(targets, LISTED)
    assert (found.metric.name, found.drop, found.limit) == (metric, drop, targets[found.name])


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        ({}, "'targets' is empty; add one"),
        ({"speedup": 2.0}, "'targets' has speedup alone; add one"),
        ({"top1": 90.0, "cosine": 0.9}, "'targets' has top1, cosine; keep the one"),
    ],
)
def test_nothing_to_search_for_is_an_error(targets: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as raised:
        sought(targets, LISTED)
    assert raised.value.key == "targets"


def test_a_drop_is_paired_with_fp32_and_met_exactly() -> None:
    target = Target("top1_drop", 100 / 3, Top1(), drop=True)
    lost = target.value(rows(100, 0, 100), rows(100, 100, 100))
    assert lost == pytest.approx(100 / 3)
    assert target.meets(lost)
    assert target.meets(-1.0)
    assert Target("top1_drop", 0.3, Top1(), drop=True).meets(0.1 + 0.2)
    assert not target.meets(lost + 0.1)


def test_less_is_better_for_an_error() -> None:
    value, drop = Target("mse", 0.1, Mse(), drop=False), Target("mse_drop", 0.1, Mse(), drop=True)
    assert value.meets(0.05)
    assert not value.meets(0.2)
    assert drop.value(rows(0.3), rows(0.25)) == pytest.approx(0.05)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "python"])
@pytest.mark.parametrize("drop", [False, True])
def test_loss_falls_as_the_plan_gets_better(name: str, *, drop: bool) -> None:
    metric = METRICS[name]()
    target = Target(name, 0.5, metric, drop=drop)
    better, worse = (0.6, 0.4) if target.higher_is_better else (0.4, 0.6)
    assert target.loss(better) < target.loss(worse)
    assert target.meets(better)
    assert not target.meets(worse)


def test_missing_labels_name_other_targets() -> None:
    error = unlabelled(Target("top1_drop", 0.5, Top1(), drop=True))
    assert error.key == "top1_drop"
    assert "give the calibration dataset labels" in str(error)
    assert "cosine, agreement, sqnr" in str(error)
