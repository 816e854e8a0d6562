"""report.json's content from what the steps saved: pure, so it can be made again at any time."""

from collections.abc import Mapping, Sequence

import numpy as np

from quantlab.calibrators.quality import clipped_fraction, sqnr_db
from quantlab.findings import Repaired, Searched
from quantlab.histogram import Histogram
from quantlab.measured import Accuracy, Performance
from quantlab.records import (
    Build,
    EngineInfo,
    EngineReport,
    HistogramReport,
    TensorReport,
    TensorThreshold,
)

DRAWN_BINS = 128
"""Bars of a drawn histogram."""

CLIPPING_COSTS = 3.0
"""dB of predicted SQNR that a threshold may give away against none clipped before it is told."""

LISTED = 20
"""Skipped samples that the report names; collection.json and evaluation.json name all."""

FEW = 32
"""Samples held back below which a choice on them is doubtful."""

HARM = 0.1
"""dB that a repair may cost before it is told."""

UNSTEADY = 2.0
"""Ratio of the 90th percentile of latencies to the median from which on they are told."""

WORST = 12
"""Tensors whose histograms are drawn: those with the lowest predicted SQNR."""


def engine(
    build: Build,
    info: EngineInfo,
    accuracy: Sequence[Accuracy],
    performance: Sequence[Performance],
) -> EngineReport:
    """Return everything known of one engine."""
    weighted = [layer for layer in info.layers if layer.weighted]
    return EngineReport(
        precision=build.precision,
        backend=info.backend,
        device=info.device,
        size_bytes=build.size_bytes,
        build_seconds=build.build_seconds,
        ran=info.ran,
        threads=info.threads,
        accuracy={a.metric: a for a in accuracy},
        performance=tuple(performance),
        weighted_layers=len(weighted),
        integer_layers=sum(layer.integer for layer in weighted),
        float_layers=tuple(layer.name for layer in weighted if not layer.integer),
        layers=info.layers,
        notes=(*build.notes, *info.notes),
        fusions=info.fusions,
        facts=build.facts,
    )


def tensor(histogram: Histogram, found: TensorThreshold) -> TensorReport:
    """Return one row of the per-tensor table."""
    return TensorReport(
        name=histogram.tensor,
        amax=found.amax,
        threshold=found.threshold,
        scale=found.scale,
        method=found.method,
        clipped_fraction=clipped_fraction(histogram, found.threshold),
        sqnr_db=sqnr_db(histogram, found.threshold),
        nan=histogram.nans,
        inf=histogram.infs,
        zero=histogram.zeros,
        elements=histogram.total + histogram.nans + histogram.infs,
    )


def drawn(
    histograms: Mapping[str, Histogram], tensors: Sequence[TensorReport]
) -> tuple[HistogramReport, ...]:
    """Return the histograms of the worst tensors, thinned for drawing, the worst first."""
    judged = [row for row in tensors if row.sqnr_db is not None]
    judged.sort(key=lambda row: (row.sqnr_db, row.name))
    return tuple(_thin(histograms[row.name], row.threshold) for row in judged[:WORST])


def warnings(
    engines: Sequence[EngineReport],
    tensors: Sequence[TensorReport],
    histograms: Mapping[str, Histogram],
    *,
    same_samples: bool,
    skipped: Sequence[str],
) -> tuple[str, ...]:
    """Return what a reader must not overlook, in sentences."""
    found = [text for row in tensors if (text := _clipping(row, histograms[row.name]))]
    found += [
        f"{row.name}: {row.nan} NaN and {row.inf} infinite elements were left out of calibration"
        for row in tensors
        if row.nan or row.inf
    ]
    found += [
        f"{row.name} was zero in every calibration sample: INT8 keeps only its zeros"
        for row in tensors
        if row.amax == 0
    ]
    if same_samples:
        found.append(
            "accuracy was measured on calibration samples: it flatters INT8; evaluate on others"
        )
    if skipped:
        more = f"; and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        found.append(f"{len(skipped)} samples were skipped: {'; '.join(skipped[:LISTED])}{more}")
    for report in engines:
        head = f"{report.precision}: "
        found += [head + note.removeprefix(head) for note in report.notes]
    return (*found, *_slow(engines), *_unsteady(engines))


def doubts(repair: Repaired | None, search: Searched | None) -> tuple[str, ...]:
    """Return what makes a choice on the samples held back doubtful, in sentences."""
    judged = [found.held_back for found in (repair, search) if found is not None]
    found = []
    if judged and min(judged) < FEW:
        found.append(
            f"thresholds, repairs or layers were chosen on {min(judged)} samples that were held "
            "back: too few to tell luck from gain; give calibration more samples"
        )
    for trial in repair.trials if repair is not None else ():
        before, after = trial.before_db, trial.after_db
        if trial.kept and before is not None and after is not None and after < before - HARM:
            found.append(
                f"repair {trial.repair!r} was asked for and costs {before - after:.1f} dB on the "
                "samples held back; leave it out, or let 'repair: auto' decide"
            )
    return tuple(found)


def _clipping(row: TensorReport, histogram: Histogram) -> str | None:
    """Say so if not clipping would be better, as where many elements share a large magnitude."""
    whole = sqnr_db(histogram, row.amax)
    if not row.clipped_fraction or row.sqnr_db is None or whole is None:
        return None
    if row.sqnr_db >= whole - CLIPPING_COSTS:
        return None
    return (
        f"{row.name}: {row.method} clips {100 * row.clipped_fraction:.2g} % of the elements: "
        f"{row.sqnr_db:.1f} dB predicted, {whole:.1f} dB without clipping; try method mse or minmax"
    )


def _slow(engines: Sequence[EngineReport]) -> list[str]:
    return [
        f"{report.precision} is {'slower' if ratio.high < 1 else 'not measurably faster'} than "
        f"fp32 at batch {speed.batch}: {ratio.value:.2f} x ({ratio.low:.2f} to {ratio.high:.2f})"
        for report in engines
        for speed in report.performance
        if (ratio := speed.speedup) and ratio.low < 1
    ]


def _unsteady(engines: Sequence[EngineReport]) -> list[str]:
    shaky = [
        f"{report.precision} at batch {speed.batch} ({speed.p50_ms:.3g} to {speed.p90_ms:.3g} ms)"
        for report in engines
        for speed in report.performance
        if speed.p90_ms > UNSTEADY * speed.p50_ms
    ]
    if not shaky:
        return []
    listed = ", ".join(shaky)
    return [
        f"latencies were unsteady, median to 90th percentile: {listed}; does something else run?"
    ]


def _thin(histogram: Histogram, threshold: float) -> HistogramReport:
    per_bar = max(1, -(-histogram.used // DRAWN_BINS))
    bars = -(-histogram.used // per_bar)
    padded = np.zeros(bars * per_bar, np.int64)
    padded[: histogram.used] = histogram.counts[: histogram.used]
    return HistogramReport(
        tensor=histogram.tensor,
        upper=bars * per_bar * histogram.width,
        counts=tuple(padded.reshape(bars, per_bar).sum(axis=1).tolist()),
        threshold=threshold,
    )
