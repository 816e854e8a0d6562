"""Calibrate with quantlab and with its peers, and compare; writes results/peers.json and .md.

    python -m benchmarks.peers [--models resnet,lite2] [--images 64,512] [--tools ...] [--resume]

Each tool gets an environment under ``benchmarks/.envs``, made on the first run.  ``--resume`` goes
on with the cells that peers.json lacks or that failed.  A run of a part writes where ``--output``
says, which is ``benchmarks/.envs/part.json`` if left out.  Exit code 1 if a limit was missed or a
process failed.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.figures import Figure
from benchmarks.peers import environments, judged, measure, tables
from benchmarks.peers import results as stored
from benchmarks.peers.cell import SEARCHES, TOOLS, Outcome
from benchmarks.peers.material import IMAGES as MOST
from benchmarks.peers.material import MODELS, SEARCHED, made
from benchmarks.peers.process import Limits

IMAGES = (64, 256, 512)
BATCH = 32
MEMORY = 18.0
"""GiB at which a process is killed, where the machine has them."""

LEFT = 2 << 30
"""Bytes that are left to the rest of the machine."""

SECONDS = 1200.0
WIDTH = 160
"""Columns where the output is not a terminal."""


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return the checked command line."""
    every = [*TOOLS, *SEARCHES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--images", default=",".join(map(str, IMAGES)))
    parser.add_argument("--tools", default=",".join(every))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--memory", type=float, default=MEMORY, help="GiB of a process")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a process")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(given)
    for name, known in (("models", list(MODELS)), ("tools", every)):
        chosen = getattr(options, name).split(",")
        for unknown in sorted(set(chosen) - set(known)):
            parser.error(f"--{name}: unknown {unknown!r}; choose from {', '.join(known)}")
        setattr(options, name, chosen)
    counts = options.images.split(",")
    if not all(count.isdecimal() and 0 < int(count) <= MOST for count in counts):
        parser.error(f"--images: expected numbers from 1 to {MOST}, got {options.images!r}")
    options.images = [int(count) for count in counts]
    whole = (options.models, options.tools, options.images) == (list(MODELS), every, list(IMAGES))
    default = stored.RESULTS / "peers.json" if whole else environments.FOLDER / "part.json"
    options.output = options.output or default
    return options


def main(given: Sequence[str]) -> int:
    """Measure, print, write; return the exit code."""
    options = arguments(given)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    memory = min(int(options.memory * tables.GIB), measure.available() - LEFT)
    results = stored.Results(options.batch, memory)
    if options.resume and options.output.exists():
        results = stored.load(options.output)
    for tool in options.tools:
        environments.python((TOOLS | SEARCHES)[tool].environment)
    for model in options.models:
        bench = measure.Bench(made(model), results.batch, Limits(memory, options.seconds))
        for group in measure.cells(model, options.images, options.tools):
            for outcome in measure.measured(group, results.outcomes, bench.run):
                results.outcomes.append(outcome)
                results.save(options.output)
                console.print(line(outcome), soft_wrap=True)
    found = list(judged.figures(results))
    results.save(options.output, [asdict(figure) | {"met": figure.met} for figure in found])
    options.output.with_suffix(".md").write_text(tables.page(results, found))
    show(console, results, found)
    console.print(f"written: {options.output}", soft_wrap=True)
    missed = [figure.name for figure in found if figure.met is False]
    for name in missed:
        console.print(f"[bold]MISSED[/bold] {name}")
    broken = list(judged.broken(results))
    for text in broken:
        console.print(f"[bold]DID NOT FINISH[/bold] {text}", soft_wrap=True)
    return 1 if missed or broken else 0


def line(outcome: Outcome) -> str:
    """Say in a line what a process did."""
    cell = outcome.cell
    return (
        f"{cell.model} {cell.images} {cell.tool}: {outcome.end} {outcome.error} "
        f"{outcome.seconds:.2f} s of {outcome.process_seconds:.2f}, "
        f"{outcome.peak_bytes / tables.GIB:.2f} GiB, {outcome.tensors} tensors"
    )


def show(console: Console, results: stored.Results, found: Sequence[Figure]) -> None:
    """Print the tables."""
    for model in dict.fromkeys(cell.model for cell in results.cells()):
        rows = tables.costs(results, model)
        console.print(tables.terminal(f"{model}: calibration", tables.COSTS, rows))
        if rows := tables.searches(results, model):
            title = f"{model}: KL search, histograms of {SEARCHED} images"
            console.print(tables.terminal(title, tables.SEARCH, rows))
    console.print(tables.terminal("Figures", tables.FIGURES, tables.figures(found)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
