"""The figures that quantlab is held to; prints tables, writes results/bench-<cpu>.json.

    python -m benchmarks.bench [PART ...]

Parts: memory, collecting, thresholds, variants, analyzing, engines; all of them if none is given,
and only then the result is written.  Exit code 1 if a limit was missed.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import analyzing, collecting, engines, memory, thresholds, variants
from benchmarks.figures import Cost, Figure, Share
from benchmarks.material import MOBILENET, RESNET, made
from quantlab.engines.host import host, versions

WIDTH = 160
"""Columns where the output is not a terminal."""

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass
class Results:
    """What the parts fill in."""

    figures: list[Figure] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    layers: dict[str, list[Share]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def measure_memory(results: Results, folder: Path) -> None:  # noqa: ARG001  # a part's signature
    """Peak memory, and ONNX Runtime's calibrators."""
    results.figures.extend(memory.figures())
    results.costs.extend(memory.costs())


def measure_collecting(results: Results, folder: Path) -> None:
    """Calibration against plain inference."""
    resnet, mobilenet = made(RESNET, folder / "resnet"), made(MOBILENET, folder / "mobilenet")
    results.figures.extend(collecting.figures(resnet, mobilenet))


def measure_thresholds(results: Results, folder: Path) -> None:
    """Time of the methods."""
    results.figures.extend(thresholds.figures(made(RESNET, folder)))


def measure_variants(results: Results, folder: Path) -> None:
    """Every method from one collection."""
    results.figures.extend(variants.figures(RESNET, folder))


def measure_analyzing(results: Results, folder: Path) -> None:
    """Diagnosis against an evaluation."""
    results.figures.extend(analyzing.figures(folder))


def measure_engines(results: Results, folder: Path) -> None:
    """Both shipped configs from end to end."""
    for network, config in (("ResNet", RESNET), ("MobileNet", MOBILENET)):
        report = engines.run(config, folder / network)
        results.figures.extend(engines.figures(network, report, limits=config == RESNET))
        results.layers[network] = engines.shares(report)
        results.reasons.extend(engines.reasons(network, report))


PARTS: dict[str, Callable[[Results, Path], None]] = {
    "memory": measure_memory,
    "collecting": measure_collecting,
    "thresholds": measure_thresholds,
    "variants": measure_variants,
    "analyzing": measure_analyzing,
    "engines": measure_engines,
}


def main(parts: Sequence[str]) -> int:
    """Measure, print, write; return the exit code."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        print(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    results, load = Results(), os.getloadavg()[0]
    for name in parts or PARTS:
        console.print(f"measuring {name} ...")
        with TemporaryDirectory() as folder:
            PARTS[name](results, Path(folder))
    show(console, results, load)
    if not parts:
        console.print(f"written: {write(results, load)}", soft_wrap=True)
    missed = [figure.name for figure in results.figures if figure.met is False]
    for name in missed:
        console.print(f"[bold]MISSED[/bold] {name}")
    return 1 if missed else 0


def show(console: Console, results: Results, load: float) -> None:
    """Print the tables."""
    facts = host()
    console.print(f"{facts['cpu']}, {facts['usable_cores']} cores, load before the run {load:.2f}")
    table = Table("figure", "value", "spread", "limit", "met", "how", title="Figures")
    for figure in results.figures:
        table.add_row(
            figure.name,
            f"{figure.value:.4g} {figure.unit}",
            f"{figure.low:.4g} to {figure.high:.4g}",
            limit(figure),
            {True: "yes", False: "MISSED", None: ""}[figure.met],
            figure.how,
        )
    console.print(table)
    if results.costs:
        console.print(_cost_table(results.costs))
    for network, shares in results.layers.items():
        table = Table("layers", "FP32 ms", "INT8 ms", title=f"{network}: one inference, batch 1")
        for share in shares:
            table.add_row(share.kind, f"{share.fp32_ms:.3f}", f"{share.int8_ms:.3f}")
        console.print(table)
    for reason in results.reasons:
        console.print(reason)


def limit(figure: Figure) -> str:
    """Return the figure's limit in words."""
    if figure.at_least is not None:
        return f"at least {figure.at_least:g} {figure.unit}"
    return "" if figure.at_most is None else f"at most {figure.at_most:g} {figure.unit}"


def _cost_table(costs: Sequence[Cost]) -> Table:
    columns = ("calibration", "tensors", "wall s", "CPU s", "peak MB", "of it grown MB", "runs")
    table = Table(*columns, title="Calibrating 512 images in batches of 8, each in a fresh process")
    for cost in costs:
        table.add_row(
            cost.name,
            str(cost.tensors or "-"),
            f"{cost.seconds:.2f}",
            f"{cost.cpu_seconds:.2f}",
            f"{cost.peak_bytes / 1e6:.0f}",
            f"{cost.grown_bytes / 1e6:.0f}",
            str(cost.runs),
        )
    return table


def write(results: Results, load: float) -> Path:
    """Write everything as JSON and return the path."""
    facts = host()
    content = {
        "host": facts,
        "load_before": load,
        "versions": versions(),
        "figures": [asdict(figure) | {"met": figure.met} for figure in results.figures],
        "calibrations": [asdict(cost) for cost in results.costs],
        "layers": {
            network: [asdict(share) for share in shares]
            for network, shares in results.layers.items()
        },
        "reasons": results.reasons,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"bench-{slug(facts['cpu'])}.json"
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return path


def slug(cpu: str) -> str:
    """Return a CPU's name as part of a file name."""
    plain = re.sub(r"\((r|tm)\)", "", cpu.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
