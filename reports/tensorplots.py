"""Charts of tensors and classes: quantization noise, histograms with thresholds, top-1."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantlab.measured import Interval
from quantlab.records import ClassReport, HistogramReport, TensorReport
from quantlab.reports import bars, formats
from quantlab.reports.bars import Bar
from quantlab.reports.blocks import Chart
from quantlab.reports.svg import (
    BAD,
    COLORS,
    MARKERS,
    axis_number,
    canvas,
    markup,
    name_rows,
    token,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME_COLUMNS = 24
"""Width to which names beside a row are cut."""

FloatArray = NDArray[np.float64]


def ranking(tensors: Sequence[TensorReport]) -> Chart | None:
    """Return the least predicted SQNRs as bars under their tensors' names."""
    known = [(tensor.sqnr_db, tensor.name) for tensor in tensors if tensor.sqnr_db is not None]
    known.sort(key=lambda pair: pair[0])
    rows = [Bar(name, value, formats.fixed(value, 1)) for value, name in known]
    title = "Tensors with the least SQNR, dB"
    return bars.ranking(rows, title, "less is worse; under the threshold", key="ranking")


def histogram(found: HistogramReport, index: int, note: str) -> Chart | None:
    """Return a tensor's magnitudes, counts on a logarithmic axis, with its threshold.

    Args:
        found: at least one element counted.
        index: tells the page's histograms apart.
        note: line below the chart.
    """
    if not any(found.counts) or found.upper <= 0:
        return None
    edges = np.linspace(0, found.upper, len(found.counts) + 1)
    counts = np.array(found.counts, np.float64)
    used = edges[np.flatnonzero(counts)[-1] + 1]
    alt = (
        f"Histogram of the magnitudes of {formats.shortened(found.tensor, 60)} up to "
        f"{formats.number(used)}, threshold {formats.number(found.threshold)}; {note}."
    )
    with canvas(f"histogram {index}", 2.1, left=0.55) as (figure, axes):
        _fill(axes, edges, counts, clipped=False)
        beyond = edges[:-1] >= found.threshold
        if beyond.any() and counts[beyond].any():
            _fill(axes, edges, np.where(beyond, counts, 0), clipped=True)
        axes.axvline(found.threshold, color=BAD, linewidth=1.6)
        axes.set_yscale("log")
        axes.set_ylim(0.5, counts.max() * 2)
        axes.set_xlim(0, max(used, found.threshold) * 1.02)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.set_yticks(_decades(counts.max()))
        axes.yaxis.set_major_formatter(axis_number)
        axes.minorticks_off()
        return Chart(markup(figure, alt), alt, found.tensor, note, code=True)


def classes(found: Sequence[tuple[ClassReport, Mapping[str, Interval]]]) -> Chart | None:
    """Return top-1 of classes, FP32 beside INT8, with their intervals."""
    if not found:
        return None
    title = "top1 by class, %"
    names = [formats.shortened(report.name, NAME_COLUMNS) for report, _ in found]
    shown = [key for key in ("fp32", "int8") if any(key in values for _, values in found)]
    left = 0.3 + 0.075 * max(len(name) for name in names)
    alt = f"{title}, with 95 % intervals; the numbers are in the table."
    with canvas("classes", 0.42 + 0.34 * len(found), left=left) as (figure, axes):
        for offset, precision in enumerate(shown):
            color = COLORS[precision]
            for index, (_, values) in enumerate(found):
                if value := values.get(precision):
                    y = index + (offset - (len(shown) - 1) / 2) * 0.34
                    axes.hlines([y], [value.low], [value.high], color=color, linewidth=2)
                    marker = MARKERS[precision]
                    axes.plot([value.value], [y], marker, color=color, markersize=5)
        name_rows(axes, [token(index) for index in range(len(found))])
        axes.grid(visible=True, axis="x")
        note = "circle: FP32, diamond: INT8; line: 95 % interval"
        return Chart(markup(figure, alt, names), alt, title, note)


def _fill(axes: "Axes", edges: FloatArray, counts: FloatArray, *, clipped: bool) -> None:
    axes.stairs(
        np.maximum(counts, 0.5),
        edges,
        baseline=0.5,
        fill=True,
        color=BAD if clipped else COLORS["int8"],
        alpha=0.9 if clipped else 0.5,
        linewidth=0,
    )


def _decades(highest: float) -> list[float]:
    """Return at most five powers of ten from 1 up to ``highest``."""
    powers = range(math.floor(math.log10(highest)) + 1)
    return [10.0**power for power in powers[:: math.ceil(len(powers) / 5)]]
