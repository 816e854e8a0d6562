"""Metrics agree with plain-Python statements of their definitions, and name what does not fit."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from quantlab.errors import ConfigError, DataError
from quantlab.metrics.agreement import Agreement
from quantlab.metrics.base import Array, Metric
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.mse import Mse
from quantlab.metrics.psnr import Psnr
from quantlab.metrics.spearman import Spearman
from quantlab.metrics.sqnr import Sqnr
from quantlab.metrics.top1 import Top1
from quantlab.metrics.top5 import Top5

few_levels = st.integers(-3, 3).map(float)
"""Ties are common, as in INT8 outputs."""

pairs = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, 5), elements=st.floats(-100, 100, width=16)),
        arrays(np.float32, (n, 5), elements=st.floats(-100, 100, width=16)),
    )
)


def value_of(metric: Metric, outputs: Array, target: Array) -> float:
    return float(metric.value(metric.scores(outputs, target)))


def hit(scores: Sequence[float], label: int, k: int) -> bool:
    """Sort the classes as the definition has it, best first and the lower index first in ties."""
    return label in sorted(range(len(scores)), key=lambda c: (-scores[c], c))[:k]


@given(
    arrays(np.float32, (5, 7), elements=few_levels), arrays(np.int64, 5, elements=st.integers(0, 6))
)
def test_top1_and_top5_sort_the_classes(scores: Array, labels: Array) -> None:
    for metric, k in ((Top1(), 1), (Top5(), 5)):
        right = [
            hit(row, label, k) for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
        ]
        assert value_of(metric, scores, labels) == pytest.approx(100 * sum(right) / 5)


@given(
    arrays(np.float32, (5, 4), elements=few_levels), arrays(np.float32, (5, 4), elements=few_levels)
)
def test_agreement_compares_the_first_best_class(a: Array, b: Array) -> None:
    same = [x.index(max(x)) == y.index(max(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert value_of(Agreement(), a, b) == pytest.approx(100 * sum(same) / 5)


@given(pairs)
def test_cosine_is_the_mean_of_cosines(pair: tuple[Array, Array]) -> None:
    cosines = []
    for a, b in zip(*(side.tolist() for side in pair), strict=True):
        norms = math.hypot(*a) * math.hypot(*b)
        cosines.append(
            1.0
            if a == b
            else math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms
            if norms
            else 0.0
        )
    assert value_of(Cosine(), *pair) == pytest.approx(math.fsum(cosines) / len(cosines), abs=1e-12)


@given(pairs)
def test_mse_is_the_mean_of_squares(pair: tuple[Array, Array]) -> None:
    a, b = (side.ravel().tolist() for side in pair)
    squares = [(x - y) ** 2 for x, y in zip(a, b, strict=True)]
    assert value_of(Mse(), *pair) == pytest.approx(math.fsum(squares) / len(squares), rel=1e-12)


@given(pairs)
def test_sqnr_is_the_ratio_of_summed_energies(pair: tuple[Array, Array]) -> None:
    a, b = (side.ravel().tolist() for side in pair)
    signal, noise = (
        math.fsum(y * y for y in b),
        math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)),
    )
    if noise == 0:
        expected = 150.0
    elif signal == 0:
        expected = -150.0
    else:
        expected = min(150.0, max(-150.0, 10 * math.log10(signal / noise)))
    assert value_of(Sqnr(), *pair) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(pairs, st.sampled_from([1.0, 255.0]))
def test_psnr_is_the_mean_over_samples(pair: tuple[Array, Array], peak: float) -> None:
    ratios = []
    for a, b in zip(*(side.tolist() for side in pair), strict=True):
        error = math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
        ratios.append(min(150.0, 10 * math.log10(peak**2 / error)) if error else 150.0)
    expected = math.fsum(ratios) / len(ratios)
    assert value_of(Psnr(peak), *pair) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(
    arrays(np.float32, (9, 1), elements=few_levels), arrays(np.int64, 9, elements=st.integers(0, 4))
)
def test_spearman_equals_scipys_and_is_0_where_nothing_is_ranked(a: Array, b: Array) -> None:
    constant = len(set(a.ravel().tolist())) == 1 or len(set(b.tolist())) == 1
    expected = 0.0 if constant else spearmanr(a[:, 0].tolist(), b.tolist()).statistic
    assert value_of(Spearman(), a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 6), np.float16), ((3, 6, 1, 1), np.float64), ((3, 6), np.int8)]
)
def test_class_scores_may_have_spatial_axes_of_one_and_any_dtype(
    shape: tuple[int, ...], dtype: type
) -> None:
    outputs: Array = np.arange(18).reshape(shape).astype(dtype)
    assert Top1().scores(outputs, np.array([[5], [5], [0]])).ravel().tolist() == [100.0, 100.0, 0.0]


def test_an_infinite_score_still_ranks() -> None:
    outputs = np.array([[-np.inf, 1.0], [np.inf, 1.0]], np.float32)
    assert Top1().scores(outputs, np.array([1, 0])).tolist() == [[100.0], [100.0]]


def test_overflowed_outputs_are_refused_where_numbers_matter() -> None:
    outputs = np.array([[1.0], [np.inf]], np.float16)
    with pytest.raises(DataError, match=r"the output has an infinity at sample 1 .*overflow"):
        Sqnr().scores(outputs, np.ones((2, 1), np.float32))


TWO = np.array([0, 1])

MISFITS = [
    (Top1(), np.ones((2, 3)), np.array([0, 3]), "label of sample 1 of the batch is 3.*0 to 2"),
    (Top1(), np.ones((2, 3)), np.array([-1, 0]), "label of sample 0 of the batch is -1"),
    (Top1(), np.ones((2, 3)), np.array([0.0, 1.0]), "labels are float64.*integer class index"),
    (Top1(), np.ones((2, 3)), np.eye(2, dtype=int), r"labels are int64 of shape \(2, 2\)"),
    (Top1(), np.ones((2, 1)), TWO, r"shape \(2, 1\) does not score classes.*evaluation: output:"),
    (Top1(), np.ones(2), TWO, r"shape \(2,\) does not score classes"),
    (Top1(), np.ones((2, 3, 4)), TWO, r"shape \(2, 3, 4\) does not score classes"),
    (Top5(), np.ones((2, 5)), TWO, "scores 5 classes, so the best 5 are always right; use top1"),
    (Mse(), np.ones((2, 3)), np.ones((2, 4)), r"FP32's output of shape \(2, 4\).*\(2, 3\)"),
    (Psnr(), np.ones((2, 3)), TWO, r"the label of shape \(2,\).*same shape"),
    (Spearman(), np.ones((2, 3)), TWO, r"the output of shape \(2, 3\): expected one number"),
    (Spearman(), np.ones(2), np.array([0, np.nan]), "the label has NaN at sample 1"),
]


@pytest.mark.parametrize(("metric", "outputs", "target", "message"), MISFITS)
def test_what_cannot_be_judged_is_named(
    metric: Metric, outputs: Array, target: Array, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        metric.scores(outputs, target)


@pytest.mark.parametrize("peak", [0.0, -1.0, math.inf, math.nan])
def test_psnr_refuses_a_peak_that_is_no_signal(peak: float) -> None:
    with pytest.raises(ConfigError, match=r"peak is .*positive"):
        Psnr(peak)
