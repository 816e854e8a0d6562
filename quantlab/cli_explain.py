"""``quantlab explain``: what becomes of each node in INT8, and the rule that decided."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantlab.visible import visible

if TYPE_CHECKING:
    from rich.table import Table

    from quantlab.explain import Explanation

WIDTH = 200
"""Columns where the output is not a terminal."""


def explain(
    source: Annotated[
        Path,
        typer.Argument(metavar="MODEL|CONFIG", help="ONNX model, or a config with its layers."),
    ],
    *,
    policy: Annotated[
        str | None,
        typer.Option(help="tensorrt (the default), openvino, onnxruntime or conservative."),
    ] = None,
) -> None:
    """Say for each node whether it runs in INT8 and which rule decided, without samples."""
    from rich.console import Console

    from quantlab.explain import explain as run

    found = run(source, policy)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, emoji=False, highlight=False)
    console.print(_table(found))
    for line in _totals(found):
        typer.echo(line)
    found.check()


def _table(found: "Explanation") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"policy {found.policy}: {found.about}")
    for column in ("node", "operator", "runs", "rule", "because"):
        table.add_column(column, overflow="fold")
    for row in found.rows:
        cells = (row.node, row.op, row.runs, row.rule, row.reason)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def _totals(found: "Explanation") -> tuple[str, str]:
    from quantlab.graph.view import WEIGHTED

    integer, fused, floats = (found.count(runs) for runs in ("INT8", "fused", "float"))
    unknown = sum(row.macs is None for row in found.rows if row.op in WEIGHTED)
    more = f", without {unknown} layers of unknown shape" if unknown else ""
    nodes = (
        f"{len(found.rows)} nodes: {integer} INT8, {fused} fused into INT8 layers or moving "
        f"integers, {floats} float; {found.tensors} quantized tensors, {found.weights} weights"
    )
    share = f"{100 * found.integer_share:.1f} % of {found.macs / 1e6:.3g} M"
    return nodes, f"MACs in INT8: {share} a sample{more}"
