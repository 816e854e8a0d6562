"""What ``quantlab calibrate --from`` prints: the predicted error under each method."""

import statistics
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantlab.variants import TABLE, Prediction, Tried
from quantlab.visible import visible

FEW = 24
"""Tensors up to which each has a row on the screen; methods.csv always has all."""

NAMED = 3
"""Worst tensors that a method's row names."""

WIDTH = 200
"""Columns where the output is not a terminal."""


def show(tried: Tried) -> None:
    """Print the tables and the folder."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, emoji=False, highlight=False)
    rows = {
        label: [row for row in tried.predictions if row.variant == label] for label in tried.labels
    }
    if len(rows[tried.labels[0]]) <= FEW:
        console.print(_matrix(rows))
    console.print(_summary(rows))
    console.print(
        Text(f"{tried.folder}: {len(rows)} caches, {TABLE} with every tensor"), soft_wrap=True
    )


def _matrix(rows: dict[str, list[Prediction]]) -> Table:
    """Return a row a tensor and a column a method."""
    table = Table("tensor", title="Predicted SQNR of the quantized tensor, dB")
    for label in rows:
        table.add_column(label, justify="right")
    for same in zip(*rows.values(), strict=True):
        table.add_row(Text(visible(same[0].tensor)), *(_decibels(row) for row in same))
    return table


def _summary(rows: dict[str, list[Prediction]]) -> Table:
    """Return a row a method: the median over tensors, and the worst of them."""
    table = Table("method", title="Predicted SQNR over all tensors, dB")
    table.add_column("median", justify="right")
    table.add_column("worst tensors")
    for label, predictions in rows.items():
        table.add_row(label, _median(predictions), Text(visible(_worst(predictions))))
    return table


def _median(predictions: Sequence[Prediction]) -> str:
    known = [row.sqnr_db for row in predictions if row.sqnr_db is not None]
    return f"{statistics.median(known):.1f}" if known else "-"


def _worst(predictions: Sequence[Prediction]) -> str:
    known = sorted((row.sqnr_db, row.tensor) for row in predictions if row.sqnr_db is not None)
    return ", ".join(f"{tensor} {value:.1f}" for value, tensor in known[:NAMED])


def _decibels(row: Prediction) -> str:
    return "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
