"""Accuracy of every engine on the same samples, with intervals and paired differences.

``evaluate`` runs all engines on each batch and keeps the metrics' scores, a row a sample: FP32's
outputs are at hand for the metrics that compare with them, and only one batch is in memory.
``summarize`` turns scores into values with 95 % intervals.  Each draw of the bootstrap takes the
same samples for every engine, so a difference is paired: what is hard for both cancels out.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from quantlab.datasets.base import Batch
from quantlab.engines.base import Array, Runner
from quantlab.errors import ConfigError, DataError, EngineError
from quantlab.files import write_with
from quantlab.intervals import bootstrap
from quantlab.measured import Accuracy, Interval
from quantlab.metrics.arrays import class_labels, class_scores
from quantlab.metrics.base import Metric
from quantlab.metrics.top1 import Top1
from quantlab.metrics.top5 import Top5
from quantlab.records import PRECISIONS, ClassReport, Precision
from quantlab.registry import nearest

Rows = NDArray[np.float64]
Classes = NDArray[np.int64]
Named = tuple[tuple[str, ...], Array]

UNREADABLE = (OSError, EOFError, BadZipFile, MemoryError, ValueError, LookupError)
"""What NumPy and we raise on a file that is missing, damaged or of something else."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What evaluation keeps: all arrays have a row a sample, in dataset order.

    Attributes:
        precisions: engines that were run, FP32 first.
        indices: (n,) each sample's place in the dataset, rising.
        rows: by metric, by precision: (n, k); FP32 is not compared with itself.
        labels: (n,) class indices; None unless top1 or top5 was measured.
        predicted: by precision: (n,) best-scored classes; empty where labels is None.
    """

    precisions: tuple[Precision, ...]
    indices: Classes
    rows: Mapping[str, Mapping[Precision, Rows]]
    labels: Classes | None
    predicted: Mapping[Precision, Classes]

    def save(self, path: Path) -> None:
        """Write an npz file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        arrays: dict[str, Array] = {"precisions": np.array(self.precisions), "index": self.indices}
        for metric, engines in self.rows.items():
            arrays |= {f"score/{metric}/{engine}": rows for engine, rows in engines.items()}
        if self.labels is not None:
            arrays["label"] = self.labels
        arrays |= {f"class/{engine}": classes for engine, classes in self.predicted.items()}
        write_with(path, lambda target: _write(target, arrays))

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what ``save`` wrote; nothing in the file is executed.

        Raises:
            DataError: the file is missing, damaged, or not of scores.
        """
        try:
            with path.open("rb") as file, NpzFile(file, allow_pickle=False) as saved:
                arrays = {tuple(key.split("/")): saved[key] for key in saved.files}
            names = arrays.pop(("precisions",)).tolist()
            return _assemble([p for p in PRECISIONS if p in names], arrays)
        except UNREADABLE as error:
            raise DataError(
                f"{path} is not a readable scores file ({error}); evaluate again to rewrite it"
            ) from error


def evaluate(
    runners: Mapping[Precision, Runner],
    batches: Iterable[Batch],
    metrics: Sequence[Metric],
    *,
    output: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Run every engine on every batch and score the outputs.

    Args:
        runners: opened engines by precision.
        batches: samples, each once, in any order.
        metrics: with distinct names.
        output: name of the output that is judged; the model's first if None.
        progress: called after each batch with the number of samples done so far.

    Raises:
        ConfigError: metrics need an FP32 engine that is not there, share a name, or ``output``
            is not an output.
        DataError: no samples or labels, or outputs and labels that a metric cannot judge.
        EngineError: an engine failed.
    """
    check(list(runners), metrics)
    engines = [precision for precision in PRECISIONS if precision in runners]
    pieces: defaultdict[tuple[str, ...], list[Array]] = defaultdict(list)
    done = 0
    for batch in batches:
        outputs = {p: _output(_run(runners[p], p, batch), output, p, batch) for p in engines}
        for key, rows in _judge(outputs, batch, metrics):
            pieces[key].append(rows)
        done += batch.size
        if progress is not None:
            progress(done)
    if not done:
        raise DataError("the evaluation dataset gave no sample; check its path and 'samples'")
    arrays = {key: np.concatenate(parts) for key, parts in pieces.items()}
    order = np.argsort(arrays["index",], kind="stable")
    return _assemble(engines, {key: rows[order] for key, rows in arrays.items()})


def summarize(
    scores: Scores, metrics: Sequence[Metric], *, seed: int = 0, resamples: int = 2000
) -> dict[Precision, tuple[Accuracy, ...]]:
    """Return each engine's metrics, in the order of ``metrics``, with 95 % intervals.

    Args:
        scores: of ``evaluate`` with the same metrics.
        metrics: what the rows of ``scores`` mean.
        seed: of the bootstrap; the same seed gives the same intervals.
        resamples: number of draws.
    """
    columns = [_summarize(scores, metric, seed, resamples) for metric in metrics]
    return {p: tuple(column[p] for column in columns) for p in scores.precisions}


def per_class(scores: Scores, names: Sequence[str] | None) -> tuple[ClassReport, ...]:
    """Return top-1 (%) by class for the classes that have samples; empty without class labels.

    Args:
        scores: of ``evaluate``.
        names: by class index; the index stands for a name that is missing.
    """
    if scores.labels is None:
        return ()
    known = dict(enumerate(names or ()))
    reports = []
    for index in np.unique(scores.labels).tolist():
        of_class = scores.labels == index
        top1: dict[str, float] = {
            precision: 100 * float(np.mean(predicted[of_class] == index))
            for precision, predicted in scores.predicted.items()
        }
        name = known.get(index, str(index))
        reports.append(ClassReport(index, name, int(of_class.sum()), top1))
    return tuple(reports)


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value that ``a`` and ``b`` are equally often right.

    Of the samples on which they differ, each is right on half if they are equally good: a binomial
    test (McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", 1947).  1.0 if they differ on none.

    Args:
        a: (n,) whether each sample is right.
        b: (n,) the same of the other engine, on the same samples.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def check(precisions: Collection[Precision], metrics: Sequence[Metric]) -> None:
    """Raise ConfigError if engines of these precisions cannot be judged by these metrics."""
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"evaluation.metrics: {', '.join(twice)} is given more than once; expected one metric "
            "of a name (a python metric is named after its function)"
        )
    comparing = [metric.name for metric in metrics if metric.compares == "fp32"]
    if comparing and "fp32" not in precisions:
        raise ConfigError(
            f"evaluation.metrics: {', '.join(comparing)} compares with the FP32 engine; add fp32 "
            "to engines.precisions"
        )


def _run(runner: Runner, precision: Precision, batch: Batch) -> Mapping[str, Array]:
    try:
        return runner.run(batch.arrays)
    except EngineError as error:
        raise EngineError(f"{precision}, {batch}: {error}") from error


def _output(outputs: Mapping[str, Array], name: str | None, engine: str, batch: Batch) -> Array:
    """Return the judged output with the batch as its first axis."""
    if name is None:
        name = next(iter(outputs))
    if name not in outputs:
        raise ConfigError(
            f"evaluation.output: the model has no output {name!r}; {nearest(name, list(outputs))}"
        )
    array = outputs[name]
    if array.shape[:1] == (batch.size,):
        return array
    if batch.size == 1:  # a model without a batch axis
        return array[None]
    raise DataError(
        f"{engine} engine: output {name!r} has shape {array.shape} for a batch of {batch.size} "
        "samples; expected one row a sample: set 'evaluation: batch: 1' or choose another output "
        "with 'evaluation: output:'"
    )


def _judge(
    outputs: Mapping[Precision, Array], batch: Batch, metrics: Sequence[Metric]
) -> Iterator[Named]:
    """Yield what is kept of a batch: arrays with a row a sample."""
    yield ("index",), batch.indices
    for metric in metrics:
        for engine, array in outputs.items():
            if metric.compares == "labels":
                target = labels_of(batch, metric.name)
            elif engine == "fp32":
                continue
            else:
                target = outputs["fp32"]
            try:
                yield ("score", metric.name, engine), metric.scores(array, target)
            except DataError as error:
                first, last = batch.indices.min(), batch.indices.max()
                raise DataError(
                    f"{engine} engine, metric {metric.name!r}, batch of dataset samples {first} to "
                    f"{last}: {error}"
                ) from error
    if any(isinstance(metric, Top1 | Top5) for metric in metrics):
        for engine, array in outputs.items():
            chosen = class_scores(array)
            yield ("class", engine), chosen.argmax(axis=1)
        yield ("label",), class_labels(labels_of(batch, "top1"), chosen.shape[1])


def labels_of(batch: Batch, metric: str) -> Array:
    """Return the labels that a metric compares with.

    Raises:
        DataError: there are none.
    """
    if batch.labels is None:
        raise DataError(
            f"metric {metric!r} compares with labels, and the evaluation dataset has none; add "
            "labels to the dataset, or choose metrics that compare with FP32: agreement, cosine, "
            "sqnr, mse"
        )
    return batch.labels


def _assemble(engines: Sequence[Precision], arrays: Mapping[tuple[str, ...], Array]) -> Scores:
    """Sort named arrays into Scores.

    Raises:
        ValueError: their lengths differ.
    """
    if len({len(array) for array in arrays.values()}) != 1:
        raise ValueError("its arrays differ in length")
    rows: defaultdict[str, dict[Precision, Rows]] = defaultdict(dict)
    predicted: dict[Precision, Classes] = {}
    for key, array in arrays.items():
        if key[0] == "score":
            rows[key[1]][cast(Precision, key[2])] = array.astype(np.float64)
        elif key[0] == "class":
            predicted[cast(Precision, key[1])] = array.astype(np.int64)
    labels = arrays.get(("label",))
    return Scores(
        precisions=tuple(engines),
        indices=arrays["index",].astype(np.int64),
        rows=dict(rows),
        labels=None if labels is None else labels.astype(np.int64),
        predicted=predicted,
    )


def _summarize(
    scores: Scores, metric: Metric, seed: int, resamples: int
) -> dict[Precision, Accuracy]:
    """Return one metric of every engine."""
    by_engine = scores.rows.get(metric.name, {})
    judged = [precision for precision in scores.precisions if precision in by_engine]
    values: dict[Precision, Interval] = {}
    deltas: dict[Precision, Interval] = {}
    if judged:
        stack = np.stack([by_engine[precision] for precision in judged])  # (engines, n, k)
        paired = judged[0] == "fp32"

        def statistic(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
            value = metric.value(np.take(stack, drawn, axis=1))
            return np.concatenate([value, value[1:] - value[:1]]) if paired else value

        engines, samples, width = stack.shape
        intervals = bootstrap(
            samples, statistic, seed=seed, resamples=resamples, width=engines * width
        )
        values = dict(zip(judged, intervals, strict=False))  # deltas follow
        deltas = dict(zip(judged[1:], intervals[engines:], strict=paired))
    return {
        precision: _accuracy(
            scores, metric, precision, values.get(precision), deltas.get(precision)
        )
        for precision in scores.precisions
    }


def _accuracy(
    scores: Scores,
    metric: Metric,
    precision: Precision,
    value: Interval | None,
    delta: Interval | None,
) -> Accuracy:
    return Accuracy(
        metric=metric.name,
        value=None if value is None else value.value,
        low=None if value is None else value.low,
        high=None if value is None else value.high,
        delta=delta,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        samples=len(scores.indices),
        p_value=None if delta is None else _p_value(scores.rows[metric.name], precision),
    )


def _p_value(rows: Mapping[Precision, Rows], precision: Precision) -> float | None:
    """Return McNemar's p-value where every sample scores 0 or 100 (%), else None."""
    ours, theirs = rows[precision], rows["fp32"]
    if ours.shape[1] != 1 or not np.isin([ours, theirs], (0.0, 100.0)).all():
        return None
    return mcnemar(ours[:, 0] > 0, theirs[:, 0] > 0)


def _write(target: Path, arrays: Mapping[str, Array]) -> None:
    with target.open("wb") as file:
        np.savez(cast(BinaryIO, file), allow_pickle=False, **arrays)
