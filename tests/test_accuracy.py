"""Evaluation gives the same scores however the data is cut; differences are paired."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.accuracy import Scores, evaluate, mcnemar, per_class, summarize
from quantlab.datasets.base import Batch
from quantlab.engines.base import Array
from quantlab.errors import ConfigError, DataError
from quantlab.measured import Interval
from quantlab.metrics import Metric
from quantlab.metrics.agreement import Agreement
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.mse import Mse
from quantlab.metrics.psnr import Psnr
from quantlab.metrics.python import Python
from quantlab.metrics.sqnr import Sqnr
from quantlab.metrics.top1 import Top1
from quantlab.records import EngineInfo, Precision

CLASSES, FEATURES = 4, 3
METRICS = (Top1(), Agreement(), Cosine(), Mse())


@dataclass(frozen=True)
class Linear:
    """A small engine: ``x @ weights``, with whole numbers so that no order of sums can matter."""

    weights: NDArray[np.float32]
    batched: bool = True

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        logits = inputs["x"].astype(np.float32) @ self.weights
        return {"logits": logits if self.batched else logits[0], "sum": logits.sum(axis=1)}

    def describe(self) -> EngineInfo:
        raise NotImplementedError("evaluation does not ask")


def engines(seed: int = 0) -> dict[Precision, Linear]:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-9, 10, (FEATURES, CLASSES)).astype(np.float32)
    return {
        "fp32": Linear(weights),
        "fp16": Linear(weights.copy()),
        "int8": Linear(weights + rng.integers(-2, 3, weights.shape).astype(np.float32)),
    }


def dataset(n: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, (n, FEATURES)).astype(np.float32)
    return Batch({"x": x}, rng.integers(0, CLASSES, n), np.arange(n))


def cut(whole: Batch, size: int, order: NDArray[np.int64] | None = None) -> Iterator[Batch]:
    order = np.arange(whole.size) if order is None else order
    for start in range(0, whole.size, size):
        rows = order[start : start + size]
        labels = None if whole.labels is None else whole.labels[rows]
        yield Batch({"x": whole.arrays["x"][rows]}, labels, whole.indices[rows])


def assert_same(a: Scores, b: Scores) -> None:
    assert a.precisions == b.precisions
    np.testing.assert_array_equal(a.indices, b.indices)
    assert a.rows.keys() == b.rows.keys()
    for metric, by_engine in a.rows.items():
        assert by_engine.keys() == b.rows[metric].keys()
        for engine, rows in by_engine.items():
            np.testing.assert_array_equal(rows, b.rows[metric][engine])
    assert (a.labels is None) == (b.labels is None)
    if a.labels is not None and b.labels is not None:
        np.testing.assert_array_equal(a.labels, b.labels)
    assert a.predicted.keys() == b.predicted.keys()
    for engine, classes in a.predicted.items():
        np.testing.assert_array_equal(classes, b.predicted[engine])


@given(st.integers(0, 999), st.integers(1, 20), st.integers(1, 20))
def test_batch_size_and_order_do_not_change_the_scores(seed: int, n: int, size: int) -> None:
    whole = dataset(n, seed)
    shuffled = np.random.default_rng(seed).permutation(n)
    expected = evaluate(engines(seed), [whole], METRICS)
    assert_same(evaluate(engines(seed), cut(whole, size, shuffled), METRICS), expected)


def test_scores_are_those_of_each_engine_on_each_sample() -> None:
    whole, runners = dataset(30), engines()
    scores = evaluate(runners, cut(whole, 7), METRICS)
    labels = np.asarray(whole.labels)
    for engine, runner in runners.items():
        predicted = runner.run(whole.arrays)["logits"].argmax(axis=1)
        np.testing.assert_array_equal(
            scores.rows["top1"][engine][:, 0], 100.0 * (predicted == labels)
        )
        np.testing.assert_array_equal(scores.predicted[engine], predicted)
    np.testing.assert_array_equal(scores.labels, labels)
    assert scores.precisions == ("fp32", "fp16", "int8")
    assert "fp32" not in scores.rows["cosine"]


def test_indices_need_not_start_at_0_or_be_whole() -> None:
    whole = replace(dataset(4), indices=np.array([40, 2, 31, 7]))
    scores = evaluate(engines(), [whole], [Top1()])
    assert scores.indices.tolist() == [2, 7, 31, 40]
    np.testing.assert_array_equal(scores.labels, np.asarray(whole.labels)[[1, 3, 2, 0]])


def test_the_summary_has_values_deltas_and_none_where_nothing_is_compared() -> None:
    scores = evaluate(engines(), [dataset(50)], METRICS)
    table = summarize(scores, METRICS, resamples=200)
    assert list(table) == ["fp32", "fp16", "int8"]
    top1, agreement, cosine, mse = table["fp32"]
    assert top1.value == scores.rows["top1"]["fp32"].mean()
    assert (top1.delta, top1.p_value) == (None, None)
    assert [a.value for a in (agreement, cosine, mse)] == [None] * 3
    top1, agreement, cosine, mse = table["int8"]
    assert top1.delta is not None
    assert table["fp32"][0].value is not None
    assert top1.value is not None
    assert top1.delta.value == pytest.approx(top1.value - table["fp32"][0].value)
    assert agreement.delta is cosine.delta is mse.delta is None
    assert agreement.value == scores.rows["agreement"]["int8"].mean()
    assert (mse.unit, mse.higher_is_better, mse.samples) == ("", False, 50)


@given(st.integers(0, 999), st.integers(1, 40))
def test_identical_engines_differ_by_exactly_nothing(seed: int, n: int) -> None:
    scores = evaluate(engines(seed), [dataset(n, seed)], METRICS)
    top1, agreement, cosine, mse = summarize(scores, METRICS, resamples=50)["fp16"]
    assert top1.delta == Interval(0.0, 0.0, 0.0)
    assert top1.p_value == 1.0
    for accuracy, perfect in ((agreement, 100.0), (cosine, 1.0), (mse, 0.0)):
        assert (accuracy.value, accuracy.low, accuracy.high) == (perfect,) * 3


@given(st.integers(0, 999), st.integers(1, 40))
def test_intervals_contain_values_and_the_order_of_samples_is_no_matter(seed: int, n: int) -> None:
    scores = evaluate(engines(seed), [dataset(n, seed)], METRICS)
    order = np.random.default_rng(seed).permutation(n)
    rows = {m: {e: r[order] for e, r in by.items()} for m, by in scores.rows.items()}
    shuffled = summarize(replace(scores, rows=rows), METRICS, resamples=50)
    for engine, accuracies in summarize(scores, METRICS, resamples=50).items():
        for accuracy, other in zip(accuracies, shuffled[engine], strict=True):
            if accuracy.value is not None:
                assert accuracy.low is not None
                assert accuracy.high is not None
                assert accuracy.low <= accuracy.value <= accuracy.high
                assert other.value == pytest.approx(accuracy.value, rel=1e-12)
            if accuracy.delta is not None:
                assert accuracy.delta.low <= accuracy.delta.value <= accuracy.delta.high
                assert other.delta is not None
                assert other.delta.value == pytest.approx(accuracy.delta.value, rel=1e-12)


def _right(*engines: NDArray[np.bool_]) -> Scores:
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    rows = {p: np.where(r, 100.0, 0.0)[:, None] for p, r in zip(precisions, engines, strict=True)}
    return Scores(precisions, np.arange(len(engines[0])), {"top1": rows}, None, {})


def test_95_percent_of_delta_intervals_cover_the_true_difference() -> None:
    rng, covered, runs = np.random.default_rng(5), 0, 250
    for seed in range(runs):
        fp32 = rng.random(120) < 0.8
        int8 = np.where(rng.random(120) < 0.15, rng.random(120) < 0.5, fp32)
        truth = 100 * 0.15 * (0.5 - 0.8)
        (accuracy,) = summarize(_right(fp32, int8), [Top1()], seed=seed, resamples=200)["int8"]
        assert accuracy.delta is not None
        covered += accuracy.delta.low <= truth <= accuracy.delta.high
    assert 0.90 <= covered / runs <= 0.99


def test_a_paired_difference_is_surer_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(6)
    fp32 = rng.random(500) < 0.7
    int8 = fp32 ^ (rng.random(500) < 0.02)

    def width(scores: Scores) -> float:
        delta = summarize(scores, [Top1()])["int8"][0].delta
        assert delta is not None
        return delta.high - delta.low

    assert width(_right(fp32, int8)) < 0.5 * width(_right(fp32, rng.permutation(int8)))


def test_one_sample_has_no_spread() -> None:
    (accuracy,) = summarize(_right(np.array([True]), np.array([False])), [Top1()])["int8"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.0, 0.0, 0.0)
    assert accuracy.delta == Interval(-100.0, -100.0, -100.0)


def test_identical_outputs_give_finite_decibels() -> None:
    (sqnr,) = summarize(evaluate(engines(), [dataset(9)], [Sqnr()]), [Sqnr()])["fp16"]
    assert (sqnr.value, sqnr.low, sqnr.high) == (150.0, 150.0, 150.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_exact_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    b, c = pairs.count((True, False)), pairs.count((False, True))
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    first, second = np.array(pairs).T
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(second, first) == pytest.approx(mcnemar(first, second))


def test_the_p_value_is_mcnemars_where_samples_are_right_or_wrong() -> None:
    fp32, int8 = np.array([True] * 9 + [False]), np.array([False] * 8 + [True] * 2)
    (accuracy,) = summarize(_right(fp32, int8), [Top1()])["int8"]
    assert accuracy.p_value == mcnemar(fp32, int8) == pytest.approx(2 * 10 / 2**9)


def test_there_is_no_p_value_for_scores_in_between() -> None:
    images = replace(dataset(6), labels=np.ones((6, CLASSES), np.float32))
    (accuracy,) = summarize(evaluate(engines(), [images], [Psnr()]), [Psnr()])["int8"]
    assert accuracy.delta is not None
    assert accuracy.p_value is None


def test_per_class_counts_each_label() -> None:
    whole, runners = dataset(40), engines()
    labels = np.asarray(whole.labels).tolist()
    reports = per_class(evaluate(runners, cut(whole, 16), [Top1()]), ["cat", "dog"])
    assert [r.name for r in reports] == ["cat", "dog", "2", "3"]
    predicted = {
        e: r.run(whole.arrays)["logits"].argmax(axis=1).tolist() for e, r in runners.items()
    }
    for report in reports:
        assert report.samples == labels.count(report.index)
        for engine, classes in predicted.items():
            right = sum(p == t == report.index for p, t in zip(classes, labels, strict=True))
            assert report.top1[engine] == pytest.approx(100 * right / report.samples)


def test_classes_without_samples_and_evaluations_without_classes_have_no_report() -> None:
    few = replace(dataset(3), labels=np.array([2, 2, 0]))
    assert [r.index for r in per_class(evaluate(engines(), [few], [Top1()]), None)] == [0, 2]
    assert per_class(evaluate(engines(), [few], [Cosine()]), None) == ()


@given(st.integers(0, 99), st.sampled_from([METRICS, METRICS[1:]]))
def test_saved_scores_come_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, metrics: tuple[Metric, ...]
) -> None:
    scores = evaluate(engines(seed), [dataset(5, seed)], metrics)
    path = tmp_path_factory.mktemp("scores") / "scores.npz"
    scores.save(path)
    assert_same(Scores.load(path), scores)
    first = path.read_bytes()
    scores.save(path)
    assert path.read_bytes() == first


def test_a_damaged_foreign_or_dangerous_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    evaluate(engines(), [dataset(5)], METRICS).save(path)
    whole = path.read_bytes()
    contents = [whole[: len(whole) // 2], b"", b"text", whole.replace(b"precisions", b"precessory")]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"scores.npz is not a readable scores file .*evaluate"):
            Scores.load(path)
    for arrays in (
        {"index": np.arange(3)},
        {"precisions": np.array(["fp32"]), "index": np.arange(3), "label": np.arange(2)},
        {"precisions": np.array(["fp32"]), "index": np.arange(3), "score/top1": np.ones((3, 1))},
        {"precisions": np.array([print], object), "index": np.arange(3)},
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match="not a readable scores file"):
            Scores.load(path)
    with pytest.raises(DataError, match=r"absent.npz is not a readable"):
        Scores.load(tmp_path / "absent.npz")


def test_progress_counts_samples() -> None:
    seen: list[int] = []
    evaluate(engines(), cut(dataset(10), 4), [Top1()], progress=seen.append)
    assert seen == [4, 8, 10]


def test_the_output_can_be_chosen() -> None:
    scores = evaluate(engines(), [dataset(5)], [Mse()], output="sum")
    x = dataset(5).arrays["x"].astype(np.float32)
    errors = (x @ (engines()["int8"].weights - engines()["fp32"].weights)).sum(axis=1)
    np.testing.assert_array_equal(scores.rows["mse"]["int8"][:, 0], np.square(errors))
    with pytest.raises(ConfigError, match=r"evaluation.output: .* no output 'logit'.*'logits'"):
        evaluate(engines(), [dataset(5)], [Mse()], output="logit")


def test_a_model_without_a_batch_axis_is_judged_one_sample_at_a_time() -> None:
    alone = {p: replace(runner, batched=False) for p, runner in engines().items()}
    expected = evaluate(engines(), [dataset(6)], METRICS)
    assert_same(evaluate(alone, cut(dataset(6), 1), METRICS), expected)
    with pytest.raises(DataError, match=r"'logits' has shape \(4,\) for a batch of 3.*batch: 1"):
        evaluate(alone, cut(dataset(6), 3), METRICS)


def test_comparing_metrics_need_fp32() -> None:
    runners = engines()
    del runners["fp32"]
    with pytest.raises(ConfigError, match=r"cosine, mse .*add fp32 to engines.precisions"):
        evaluate(runners, [dataset(5)], [Top1(), Cosine(), Mse()])


def test_without_fp32_labels_are_still_judged_and_no_delta_is_given() -> None:
    runners = engines()
    del runners["fp32"]
    table = summarize(evaluate(runners, [dataset(5)], [Top1()]), [Top1()])
    assert [(p, a.delta, a.p_value) for p, (a,) in table.items()] == [
        ("fp16", None, None),
        ("int8", None, None),
    ]


def test_fp32_alone_has_nothing_to_be_compared_with() -> None:
    scores = evaluate({"fp32": engines()["fp32"]}, [dataset(5)], [Top1(), Cosine()])
    top1, cosine = summarize(scores, [Top1(), Cosine()])["fp32"]
    assert top1.value is not None
    assert (cosine.value, cosine.samples) == (None, 5)


def test_a_name_stands_for_one_metric() -> None:
    with pytest.raises(ConfigError, match="top1 is given more than once"):
        evaluate(engines(), [dataset(5)], [Top1(), Python("anything:top1")])


def test_missing_labels_are_explained() -> None:
    with pytest.raises(DataError, match=r"'top1' compares with labels.*agreement, cosine, sqnr"):
        evaluate(engines(), [replace(dataset(5), labels=None)], [Top1()])


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(DataError, match="gave no sample"):
        evaluate(engines(), [], [Top1()])


def test_a_bad_output_names_engine_metric_and_samples() -> None:
    runners = engines()
    runners["int8"] = Linear(np.full((FEATURES, CLASSES), np.nan, np.float32))
    message = "int8 engine, metric 'cosine', batch of dataset samples 0 to 3: the output has NaN"
    with pytest.raises(DataError, match=message):
        evaluate(runners, cut(dataset(8), 4), [Cosine()])
