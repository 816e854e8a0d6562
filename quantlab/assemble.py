"""report.json's content from what the steps saved: pure, so it can be made again at any time."""

from collections.abc import Mapping, Sequence

import numpy as np

from quantlab.calibrators.quality import clipped_fraction, sqnr_db
from quantlab.histogram import Histogram
from quantlab.records import (
    Accuracy,
    Build,
    EngineInfo,
    EngineReport,
    HistogramReport,
    Performance,
    TensorReport,
    TensorThreshold,
)

DRAWN_BINS = 128
"""Bars of a drawn histogram."""

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
        notes=info.notes,
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
    *,
    same_samples: bool,
    skipped: Sequence[str],
) -> tuple[str, ...]:
    """Return what a reader must not overlook, in sentences."""
    found = [
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
            "accuracy was measured on the calibration samples: it flatters INT8; evaluate on others"
        )
    if skipped:
        found.append(f"{len(skipped)} samples were skipped: {'; '.join(skipped[:5])}")
    for report in engines:
        found += [f"{report.precision}: {note}" for note in report.notes]
    return (*found, *_int8_warnings(engines))


def _int8_warnings(engines: Sequence[EngineReport]) -> list[str]:
    by_precision = {report.precision: report for report in engines}
    int8 = by_precision.get("int8")
    if int8 is None:
        return []
    found = []
    if int8.float_layers:
        found.append(
            f"int8: {len(int8.float_layers)} of {int8.weighted_layers} convolutions and matrix "
            f"products ran in floating point: {', '.join(int8.float_layers[:8])}"
        )
    found += [
        f"int8 is not faster than fp32 at batch {speed.batch}: {speed.speedup.value:.2f} x "
        f"({speed.speedup.low:.2f} to {speed.speedup.high:.2f})"
        for speed in int8.performance
        if speed.speedup and speed.speedup.low < 1
    ]
    return found


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
