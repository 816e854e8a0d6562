"""What the backend made of the model's nodes: layers that it joined, and those that it added."""

from collections import Counter

from quantlab.records import EngineReport, Fusion, Layer, Report
from quantlab.reports import formats
from quantlab.reports.blocks import Block, Cell, Column, Details, Paragraph, Section, Table, row

KINDS = ("vertical", "horizontal", "removed")

SHORT = 12
"""A table of at most so many rows is open from the start."""


def section(report: Report) -> Section | None:
    """Return the section on fusions, None where no backend tells of them."""
    told = [engine for engine in report.engines if engine.fusions or reformats(engine)]
    if not told:
        return None
    blocks: list[Block] = [
        Paragraph(
            "A vertical fusion is a chain in one kernel, such as convolution, bias and activation; "
            "a horizontal one joins operations on the same input; removed nodes need no kernel, "
            "as a Concat that is written in place. Reformat layers change a tensor's layout or "
            "type between kernels that want different ones: time without arithmetic."
        ),
        _overview(told),
    ]
    for engine in told:
        blocks.extend(_joined(engine))
        blocks.extend(_added(engine))
    return Section("Fusions", tuple(blocks))


def reformats(engine: EngineReport) -> list[Layer]:
    """Return the layers that only change a layout or type."""
    return [layer for layer in engine.layers if layer.type.startswith("Reformat")]


def _overview(engines: list[EngineReport]) -> Table:
    columns = (
        Column("Engine", "precision"),
        Column("Layers", "number"),
        *(Column(f"Fused, {kind}" if kind != "removed" else "Removed", "number") for kind in KINDS),
        Column("Reformat layers", "number"),
        Column("their time, ms", "number"),
    )
    rows = [
        row(
            formats.label(engine),
            formats.count(len(engine.layers)),
            *_counts(engine),
            formats.count(len(reformats(engine))),
            _time(reformats(engine)),
        )
        for engine in engines
    ]
    return Table("Layers by what became of the nodes", columns, tuple(rows), "fusions.csv")


def _counts(engine: EngineReport) -> list[str]:
    amounts = Counter(str(fusion.kind) for fusion in engine.fusions)
    return [formats.count(amounts[kind]) for kind in KINDS]


def _time(layers: list[Layer]) -> str:
    timed = [layer.ms for layer in layers if layer.ms is not None]
    return formats.number(sum(timed)) if timed else formats.MISSING


def _joined(engine: EngineReport) -> list[Block]:
    if not engine.fusions:
        return []
    columns = (Column("Layer", "code"), Column("Fusion"), Column("Nodes", "code"))
    rows = tuple(_fusion(fusion) for fusion in engine.fusions)
    title = f"{formats.label(engine)}: fused nodes ({formats.count(len(rows))})"
    table = Table(title, columns, rows, "fusions.csv")
    return [Details(title, (table,), opened=len(rows) <= SHORT)]


def _fusion(fusion: Fusion) -> tuple[Cell, ...]:
    return row(fusion.layer or formats.MISSING, fusion.kind, " + ".join(fusion.nodes))


def _added(engine: EngineReport) -> list[Block]:
    layers = reformats(engine)
    if not layers:
        return []
    columns = (
        Column("Layer", "code"),
        Column("Operation"),
        Column("From type"),
        Column("ms", "number"),
    )
    rows = tuple(
        row(
            layer.name,
            layer.type,
            layer.precision,
            formats.MISSING if layer.ms is None else formats.number(layer.ms),
        )
        for layer in layers
    )
    title = f"{formats.label(engine)}: reformat layers ({formats.count(len(rows))})"
    return [Details(title, (Table(title, columns, rows, "layers.csv"),))]
