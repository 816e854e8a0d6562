"""The threshold of every tensor, worst first, and the histograms of the worst."""

from quantlab.records import HistogramReport, Report, TensorReport
from quantlab.reports import formats, tensorplots
from quantlab.reports.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Paragraph,
    Section,
    Table,
    callout,
    charts,
    row,
)
from quantlab.reports.tables import worst_first

DRAWN = 24
"""Histograms drawn."""

SHORT = 12
"""A table of at most so many rows is open from the start."""

COLUMNS = (
    Column("Tensor", "code"),
    Column("SQNR, dB", "number"),
    Column("Largest", "number"),
    Column("Threshold", "number"),
    Column("Scale", "number"),
    Column("Clipped", "number"),
    Column("Zeros", "number"),
    Column("NaN", "number"),
    Column("Inf", "number"),
    Column("Method"),
)


def section(report: Report) -> Section | None:
    """Return the section on tensors, None if none was calibrated."""
    if not report.tensors:
        return None
    tensors = worst_first(report.tensors)
    table = Table(
        "Calibrated tensors, least SQNR first",
        COLUMNS,
        tuple(_row(tensor) for tensor in tensors),
        "tensors.csv",
    )
    summary = f"All {formats.plural(len(tensors), 'tensor')}, worst first"
    blocks: tuple[Block, ...] = (
        Paragraph(
            "SQNR is the signal-to-quantization-noise ratio that the histogram predicts under "
            "the threshold: 6 dB more halve the error. A low bar is where INT8 loses most."
        ),
        *callout("Values that are not finite", _not_finite(tensors)),
        *charts(tensorplots.ranking(report.tensors)),
        *_histograms(report),
        Details(summary, (table,), opened=len(tensors) <= SHORT),
    )
    return Section("Tensors", blocks)


def _not_finite(tensors: list[TensorReport]) -> list[str]:
    return [
        f"{tensor.name}: {formats.count(tensor.nan)} NaN and {formats.count(tensor.inf)} infinite "
        f"of {formats.count(tensor.elements)} elements; the threshold is from the finite ones"
        for tensor in tensors
        if tensor.nan or tensor.inf
    ]


def _row(tensor: TensorReport) -> tuple[Cell, ...]:
    sqnr = tensor.sqnr_db
    return row(
        tensor.name,
        formats.MISSING if sqnr is None else formats.fixed(sqnr, 1),
        formats.number(tensor.amax, 4),
        formats.number(tensor.threshold, 4),
        formats.number(tensor.scale, 4),
        formats.share(tensor.clipped_fraction),
        formats.share(tensor.zero / tensor.elements) if tensor.elements else formats.MISSING,
        _bad(tensor.nan),
        _bad(tensor.inf),
        tensor.method,
    )


def _bad(amount: int) -> Cell:
    return Cell(formats.count(amount), tone="bad" if amount else "")


def _histograms(report: Report) -> tuple[Block, ...]:
    """Return the worst tensors' histograms under a line that explains them."""
    known = {tensor.name: tensor for tensor in report.tensors}
    drawn = charts(
        *(
            tensorplots.histogram(found, index, _note(found, known.get(found.tensor)))
            for index, found in enumerate(report.histograms[:DRAWN])
        )
    )
    if not drawn:
        return ()
    explained = (
        "Magnitudes of single tensors, the counts on a logarithmic axis. The line is the "
        "threshold; what lies beyond it is clipped and drawn in its colour."
    )
    return (Paragraph(explained), *drawn)


def _note(found: HistogramReport, tensor: TensorReport | None) -> str:
    parts = [f"threshold {formats.number(found.threshold)}"]
    if tensor:
        parts.append(f"{formats.share(tensor.clipped_fraction)} clipped")
    if tensor and tensor.sqnr_db is not None:
        parts.append(f"{formats.fixed(tensor.sqnr_db, 1)} dB")
    return ", ".join(parts)
