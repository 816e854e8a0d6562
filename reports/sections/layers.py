"""What ran in INT8 and what did not, as the backends tell it."""

from collections import Counter

from quantlab.records import EngineReport, Layer, Report
from quantlab.reports import formats
from quantlab.reports.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Paragraph,
    Section,
    Table,
    callout,
    row,
)
from quantlab.reports.reasons import Left, left_out

SLOWEST = 10
"""Rows of the table of slowest layers."""

LEFT_OUT = (
    Column("Layer", "code"),
    Column("Operation"),
    Column("Computed in"),
    Column("Why", "prose"),
    Column("ms", "number"),
)


def section(report: Report) -> Section | None:
    """Return the section on layers, None without engines."""
    if not report.engines:
        return None
    blocks: list[Block] = [
        Paragraph(
            "Asked for is not run: a backend may compute a layer in a wider type. Counted here "
            "is what the opened engine says of its layers; weighted layers are convolutions and "
            "matrix products, the work that INT8 is about."
        )
    ]
    for engine in report.engines:
        blocks.extend(
            callout(f"{formats.label(engine)}: notes of the engine", engine.notes, tone="")
        )
    blocks.append(_overview(report))
    blocks.extend(_left_out(report))
    for engine in report.engines:
        blocks.extend(_slowest(engine))
        blocks.extend(_kernels(engine))
    return Section("What ran in INT8", tuple(blocks))


def _overview(report: Report) -> Table:
    columns = (
        Column("Engine", "precision"),
        Column("Weighted layers in INT8", "number"),
        Column("Computed in"),
        Column("All layers by type"),
        Column("Threads", "number"),
    )
    rows = [
        row(
            formats.label(engine),
            _integer(engine),
            engine.ran,
            ", ".join(f"{kind} {amount}" for kind, amount in _counts(engine)) or formats.MISSING,
            formats.count(engine.threads),
        )
        for engine in report.engines
    ]
    return Table("Layers by the type they computed in", columns, tuple(rows), "layers.csv")


def _integer(engine: EngineReport) -> Cell:
    if engine.weighted_layers == 0:
        return Cell(formats.MISSING)
    complete = engine.integer_layers >= engine.weighted_layers
    text = f"{engine.integer_layers} of {engine.weighted_layers}"
    if engine.precision != "int8":
        return Cell(text)
    return Cell(text, tone="good" if complete else "bad")


def _counts(engine: EngineReport) -> list[tuple[str, int]]:
    return Counter(layer.precision for layer in engine.layers).most_common()


def _left_out(report: Report) -> list[Block]:
    """Return the layers of INT8 engines that ran in floating point, and why."""
    left = left_out(report)
    weighted = [found for found in left if found.layer is None or found.layer.weighted]
    others = [found for found in left if found not in weighted]
    blocks: list[Block] = []
    for title, rows in (
        ("Weighted layers that did not run in INT8", weighted),
        ("Other layers that placement decided about and that did not run in INT8", others),
    ):
        if rows:
            table = Table(title, LEFT_OUT, tuple(map(_layer, rows)), "left_out.csv")
            summary = f"{title} ({formats.count(len(rows))})"
            opened = rows is weighted and len(rows) <= SLOWEST
            blocks.append(Details(summary, (table,), opened=opened))
    return blocks


def _layer(found: Left) -> tuple[Cell, ...]:
    layer = found.layer
    if layer is None:
        return row(found.name, formats.MISSING, formats.MISSING, found.reason, formats.MISSING)
    return row(found.name, layer.type, layer.precision, found.reason, _ms(layer))


def _ms(layer: Layer) -> str:
    return formats.MISSING if layer.ms is None else formats.number(layer.ms)


def _slowest(engine: EngineReport) -> list[Block]:
    timed = [(layer.ms, layer) for layer in engine.layers if layer.ms is not None]
    total = sum(ms for ms, _ in timed)
    if not total:
        return []
    timed.sort(key=lambda pair: -pair[0])
    rows = [
        row(layer.name, layer.type, layer.precision, _ms(layer), formats.share(ms / total))
        for ms, layer in timed[:SLOWEST]
    ]
    columns = (
        Column("Layer", "code"),
        Column("Operation"),
        Column("Computed in"),
        Column("ms", "number"),
        Column("Share", "number"),
    )
    title = f"{formats.label(engine)}: slowest of {formats.plural(len(timed), 'timed layer')}"
    table = Table(title, columns, tuple(rows), "" if len(timed) <= SLOWEST else "layers.csv")
    return [Details(title, (table,))]


def _kernels(engine: EngineReport) -> list[Block]:
    """Return the kernel of each layer, as far as the backend tells them."""
    rows = tuple(
        row(layer.name, layer.type, layer.precision, layer.kernel)
        for layer in engine.layers
        if layer.kernel
    )
    if not rows:
        return []
    columns = (
        Column("Layer", "code"),
        Column("Operation"),
        Column("Computed in"),
        Column("Kernel", "code"),
    )
    title = f"{formats.label(engine)}: kernels of {formats.plural(len(rows), 'layer')}"
    return [Details(title, (Table(title, columns, rows, "layers.csv"),))]
