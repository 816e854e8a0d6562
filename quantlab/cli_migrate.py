"""``quantlab migrate``: an old calibration cache, or another tool's Q/DQ model, for TensorRT 11."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantlab.errors import EngineError, ModelError
from quantlab.visible import visible

if TYPE_CHECKING:
    from rich.table import Table

    from quantlab.migrate import LayerRow, Migration
    from quantlab.migrate_qdq import Inspection
    from quantlab.plan_report import PlanReport
    from quantlab.qdq_cost import Cost, Difference
    from quantlab.terminal import Terminal

MODEL, REPORT, PLAN = "int8.onnx", "migration.json", "plan.json"
"""Files in the output folder."""


def migrate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="[OLD.cache] MODEL.onnx", help="The model alone if it has Q/DQ."),
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; must not exist.")
    ] = None,
    convert: Annotated[
        bool, typer.Option("--convert", help="Convert the Q/DQ that TensorRT does not take.")
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="With --convert: measure on these what it costs."),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="With OLD.cache: FP16 around the integers, not FP32.")
    ] = False,
    plan_report: Annotated[
        bool,
        typer.Option("--plan-report", help="Build it with TensorRT; with OLD.cache, all layers."),
    ] = False,
) -> None:
    """Bring an old calibration cache, or a model that another tool quantized, to TensorRT 11.

    OLD.cache is one of TensorRT 8 to 10, MODEL.onnx its FP32 model:
    writes the Q/DQ model and says which layers got no scale.

    Given a model alone, says what TensorRT would refuse or misread of
    its Q/DQ, and converts that if asked.
    """
    from quantlab.terminal import Terminal

    if len(files) > 2:
        raise typer.BadParameter(
            f"expected a cache and a model, or a model, got {len(files)} files"
        )
    alone = len(files) == 1
    if (alone and fp16) or (not alone and (convert or samples)) or (samples and not convert):
        raise typer.BadParameter(
            "--fp16 goes with a cache, --convert with a model alone, --samples with --convert"
        )
    folder = output or Path(f"{files[-1].stem}-tensorrt11")
    terminal = Terminal()
    if not alone:
        _cache(files, folder, terminal, fp16=fp16, plan=plan_report)
    elif convert:
        _convert(files[0], folder, samples, terminal, plan=plan_report)
    else:
        _check(files[0], folder, terminal, plan=plan_report)


def _cache(
    files: Sequence[Path], folder: Path, terminal: "Terminal", *, fp16: bool, plan: bool
) -> None:
    from quantlab import migrate, plan_report
    from quantlab.files import staged_folder
    from quantlab.graph import model as graph
    from quantlab.graph.to_fp16 import to_fp16
    from quantlab.saved import dump

    source, model = files
    built = None
    with staged_folder(folder) as target:
        made = migrate.migrate(source, model, float16=fp16)
        half = to_fp16(made.model) if fp16 else None
        graph.save(half.model if half else made.model, target / MODEL)
        dump(target / REPORT, made.report, migrate.Migration)
        if plan:
            built = plan_report.plan(target / MODEL, target, terminal, float16=fp16)
            dump(target / PLAN, built, plan_report.PlanReport)
    _say_migration(made.report)
    if half and half.clipped:
        typer.echo(f"beyond FP16's 65504 and clipped to it: {_listed(half.clipped)}")
    if plan:
        _print(_layers(made.report.layers))
    _finish(folder, built)


def _check(path: Path, folder: Path, terminal: "Terminal", *, plan: bool) -> None:
    from quantlab import migrate_qdq

    found, _ = migrate_qdq.inspect(path)
    _say_findings(found)
    found.require_fit()
    typer.echo(f"TensorRT takes it as it is: {found.nodes} nodes quantize")
    if plan:
        from quantlab import plan_report
        from quantlab.files import staged_folder
        from quantlab.saved import dump

        with staged_folder(folder) as target:
            built = plan_report.plan(path, target, terminal)
            dump(target / PLAN, built, plan_report.PlanReport)
        _finish(folder, built)


def _convert(
    path: Path, folder: Path, samples: Path | None, terminal: "Terminal", *, plan: bool
) -> None:
    from quantlab import migrate_qdq, plan_report
    from quantlab.files import staged_folder
    from quantlab.graph import model as graph
    from quantlab.saved import dump

    built = None
    with staged_folder(folder) as target:
        found, settled = migrate_qdq.inspect(path)
        if not found.findings:
            raise ModelError(f"{path}: there is nothing to convert, TensorRT takes it as it is")
        _say_findings(found)
        report, made = migrate_qdq.convert(found, settled, samples, terminal)
        graph.save(made, target / MODEL)
        dump(target / REPORT, report, migrate_qdq.Conversion)
        if plan:
            built = plan_report.plan(target / MODEL, target, terminal)
            dump(target / PLAN, built, plan_report.PlanReport)
    _say_cost(report.cost)
    _finish(folder, built)


def _finish(folder: Path, built: "PlanReport | None") -> None:
    """Say what was written and what the builder said; raise what it refused."""
    if built is not None and built.path:
        typer.echo(
            f"{visible(built.builder)}: {built.path}, {built.size_bytes / 1e6:.2f} MB in "
            f"{built.seconds:.1f} s"
        )
        for note in built.notes:
            typer.echo(f"  {visible(note)}")
    typer.echo(f"wrote {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if built is not None and built.refused and built.builder:
        raise EngineError(built.refused)
    if built is not None and built.refused:
        typer.echo(f"no plan was built: {visible(built.refused)}")


def _say_migration(report: "Migration") -> None:
    typer.echo(
        f"{report.header}: {report.entries} tensors; the model's layers read "
        f"{len(report.needed)} as INT8"
    )
    counts = Counter(match.how for match in report.matches)
    told = ", ".join(f"{count} {how}" for how, count in counts.items())
    typer.echo(f"scales found: {len(report.matches)} ({told})")
    for match in report.matches:
        if match.how != "exact":
            typer.echo(f"  {visible(match.tensor)}: {visible(str(match))}")
    for title, names in (
        ("no scale", report.missing),
        ("scale 0, which is none", report.zero),
        ("not used, made by TensorRT's parser", report.parsers_own),
        ("not used, could mean several tensors", report.ambiguous),
        ("not used, no tensor of the model", report.unused),
    ):
        if names:
            typer.echo(f"{title}: {len(names)}: {_listed(names)}")
    quantized = [row for row in report.layers if row.quantized and row.macs]
    every = [row for row in report.layers if row.macs]
    typer.echo(
        f"INT8: {len(quantized)} of {len(every)} layers with weights, "
        f"{report.share(quantized):.1%} of the multiplications"
    )
    if report.lost:
        typer.echo(
            f"in floating point for want of a scale: {len(report.lost)} layers, "
            f"{report.share(report.lost):.1%} of the multiplications"
        )
    for row in report.lost:
        typer.echo(f"  {row.op} {visible(row.node)}: {visible(row.reason)}")


def _say_findings(found: "Inspection") -> None:
    """Print every place, those of one rule together."""
    for rule in dict.fromkeys(finding.rule for finding in found.findings):
        places = [finding for finding in found.findings if finding.rule == rule]
        typer.echo(f"{rule}: {len(places)} tensors; {places[0].effect}")
        for place in places:
            typer.echo(
                f"  {place.op} {visible(place.node)} of {visible(place.tensor)}: {place.found}"
            )
            if not place.convertible:
                typer.echo(f"    not convertible: {visible(place.remedy)}")
        if places[0].convertible:
            typer.echo(f"  converting: {places[0].remedy}")


def _say_cost(cost: "Cost") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("tensor", "found", "step", "Relu", "weights", "output, alone", title="Conversion")
    for row in cost.tensors:
        table.add_row(
            Text(visible(row.tensor)),
            ", ".join(row.rules),
            f"x {row.growth:.3g}",
            "yes" if row.relu else "",
            "" if row.weights_sqnr_db is None else f"{row.weights_sqnr_db:.1f} dB",
            "" if row.alone is None else f"{row.alone.sqnr_db:.1f} dB",
        )
    _print(table)
    if cost.together is None:
        typer.echo("give --samples to measure what this does to the outputs")
        return
    typer.echo(f"converted, {cost.samples} samples: {_difference(cost.together)}")
    if cost.unconverted is not None:
        typer.echo(f"unconverted, its UINT8 read as INT8: {_difference(cost.unconverted)}")


def _difference(found: "Difference") -> str:
    return (
        f"output {visible(found.output)} is at {found.sqnr_db:.1f} dB SQNR, cosine "
        f"{found.cosine:.5f}, of the model as it was"
    )


def _layers(rows: Iterable["LayerRow"]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("layer", "op", "INT8", "scale", "from", "reason", title="Layers")
    for row in rows:
        table.add_row(
            Text(visible(row.node)),
            row.op,
            "yes" if row.quantized else "no",
            "" if row.scale is None else f"{row.scale:.6g}",
            Text(visible(row.source)),
            Text(visible(row.reason)),
        )
    return table


def _print(table: "Table") -> None:
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, emoji=False, highlight=False).print(table)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(visible(name) for name in names)
