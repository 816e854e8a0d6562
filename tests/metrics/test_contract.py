"""Every metric in METRICS keeps the contract of ``metrics/base.py``."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError, DataError
from quantlab.metrics import METRICS, Metric
from quantlab.metrics.base import Array
from quantlab.registry import make, schema

FUNCTION = "tests.metrics.scoring:closeness"


class Case(NamedTuple):
    """How to try a metric: parameters, a maker of (outputs, target), the perfect output."""

    parameters: dict[str, object]
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]
    perfect: Callable[[Array], Array]


def _classified(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    return rng.normal(size=(n, 9)).astype(np.float32), rng.integers(0, 9, n)


def _images(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    clean = rng.random((n, 1, 3, 4)).astype(np.float32)
    return clean + rng.normal(scale=0.1, size=clean.shape).astype(np.float32), clean


def _logits(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    return rng.normal(size=(n, 9)).astype(np.float32), rng.normal(size=(n, 9)).astype(np.float32)


def _numbers(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    return rng.normal(size=(n, 1)).astype(np.float32), rng.integers(0, 5, n)


def _one_hot(labels: Array) -> Array:
    return np.eye(9, dtype=np.float32)[labels.astype(np.int64)]


CASES = {
    "top1": Case({}, _classified, _one_hot),
    "top5": Case({}, _classified, _one_hot),
    "agreement": Case({}, _logits, np.copy),
    "cosine": Case({}, _images, np.copy),
    "sqnr": Case({}, _images, np.copy),
    "mse": Case({}, _images, np.copy),
    "psnr": Case({"peak": 1.0}, _images, np.copy),
    "spearman": Case({}, _numbers, lambda labels: labels.astype(np.float32)),
    "python": Case({"function": FUNCTION}, _images, np.copy),
}

every = pytest.mark.parametrize("name", METRICS)
draws = given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12))


def _made(name: str) -> Metric:
    return make("metric", METRICS, name, CASES[name].parameters)


def test_every_metric_has_a_case() -> None:
    assert set(CASES) == set(METRICS)


@every
def test_says_what_it_is(name: str) -> None:
    metric = _made(name)
    assert metric.name == ("closeness" if name == "python" else name)
    assert metric.unit in ("%", "dB", "")
    assert metric.compares in ("labels", "fp32")
    assert schema(METRICS[name])["properties"].keys() >= CASES[name].parameters.keys()


@every
def test_refuses_an_unknown_parameter(name: str) -> None:
    with pytest.raises(ConfigError, match="has no parameter 'colour'"):
        make("metric", METRICS, name, {"colour": "red"})


@every
@draws
def test_scores_are_a_finite_row_a_sample(name: str, seed: int, n: int) -> None:
    scores = _made(name).scores(*CASES[name].draw(np.random.default_rng(seed), n))
    assert scores.shape[0] == n
    assert scores.ndim == 2
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


@every
@draws
def test_any_cut_into_batches_gives_the_same_scores(name: str, seed: int, n: int) -> None:
    metric, (outputs, target) = _made(name), CASES[name].draw(np.random.default_rng(seed), n)
    cut = seed % (n - 1) + 1
    parts = [metric.scores(outputs[:cut], target[:cut]), metric.scores(outputs[cut:], target[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), metric.scores(outputs, target))


@every
@draws
def test_value_takes_leading_axes_and_no_notice_of_order(name: str, seed: int, n: int) -> None:
    metric, rng = _made(name), np.random.default_rng(seed)
    scores = metric.scores(*CASES[name].draw(rng, n))
    drawn = rng.integers(0, n, (2, 3, n))
    values = metric.value(scores[drawn])
    assert values.shape == (2, 3)
    for place in np.ndindex(2, 3):
        rows = scores[rng.permutation(drawn[place])]
        assert metric.value(rows) == pytest.approx(float(values[place]), rel=1e-9, abs=1e-9)


@every
@draws
def test_nothing_beats_the_perfect_output(name: str, seed: int, n: int) -> None:
    metric, (outputs, target) = _made(name), CASES[name].draw(np.random.default_rng(seed), n)
    best = metric.value(metric.scores(CASES[name].perfect(target), target))
    got = metric.value(metric.scores(outputs, target))
    assert np.isfinite(best)
    assert best >= got if metric.higher_is_better else best <= got


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"python"}))
def test_nan_is_refused_with_its_sample(name: str) -> None:
    outputs, target = CASES[name].draw(np.random.default_rng(0), 4)
    outputs.reshape(4, -1)[2, 0] = np.nan
    with pytest.raises(DataError, match="the output has NaN at sample 2 of the batch"):
        _made(name).scores(outputs, target)
