"""Quantize ordinary and hard networks with quantlab and its peers, judge and time what they made.

    python -m benchmarks.accuracy --data CIFAR.npz --nets FOLDER [--networks resnet20,vit]
        [--forms hard] [--tools quantlab-mse,nncf] [--phase quantize,judge,time]

Each tool gets an environment under ``benchmarks/.envs``, made on the first run.  What is done is
kept in ``--work`` and not done again; ``--again`` names settings to do anew.  Only a run of
everything writes benchmarks/results/accuracy.json; a part writes into the working folder.  Exit
code 1 if a figure is missed or a cell of quantlab's gave no model, 2 if networks or data lack.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.accuracy import (
    building,
    confirming,
    judging,
    material,
    quantizing,
    results,
    tables,
    timing,
)
from benchmarks.accuracy import figures as held
from benchmarks.accuracy.networks import NETWORKS
from benchmarks.accuracy.request import FORMS, INT8
from benchmarks.accuracy.settings import SETTINGS, for_tensorrt
from benchmarks.peers import environments, measure
from benchmarks.peers.process import Limits
from benchmarks.peers.tables import GIB, terminal

PHASES = ("quantize", "judge", "confirm", "time", "build")
MEMORY = 18.0
"""GiB at which a process is killed, where the machine has them."""

LEFT = 2 << 30
SECONDS = 300.0
WIDTH = 200


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = {"networks": NETWORKS, "forms": FORMS, "tools": SETTINGS, "phase": PHASES}
    for option, known in choices.items():
        parser.add_argument(f"--{option}", default=",".join(known))
    parser.add_argument("--again", default="", help="settings whose cells are done anew")
    parser.add_argument("--nets", type=Path, default=environments.FOLDER / "networks")
    parser.add_argument("--data", type=Path, default=environments.FOLDER / "cifar10.npz")
    parser.add_argument("--work", type=Path, default=environments.FOLDER / "accuracy")
    parser.add_argument("--samples", type=int, default=256, help="of calibration")
    parser.add_argument("--evaluation", type=int, default=2000, help="samples, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timed", default="ordinary", help="forms that are timed")
    parser.add_argument("--openings", type=int, default=8, help="of each timed model")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a process")
    options = parser.parse_args(given)
    for option, known in (choices | {"again": SETTINGS, "timed": FORMS}).items():
        chosen = [name for name in getattr(options, option).split(",") if name]
        for unknown in sorted(set(chosen) - set(known)):
            parser.error(f"--{option}: unknown {unknown!r}; choose from {', '.join(known)}")
        setattr(options, option, chosen)
    return options


def main(given: Sequence[str]) -> int:
    """Run the phases, print, write; return the exit code."""
    options = arguments(given)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    source = options.source = material.Source(
        options.nets, options.data, options.samples, options.evaluation, options.seed
    )
    for text in (missing := source.missing(options.networks)):
        console.print(text, soft_wrap=True, highlight=False)
    if missing:
        return 2
    materials = [
        material.made(name, form, source, options.work)
        for name in options.networks
        for form in options.forms
    ]
    for phase in options.phase:
        started = time.perf_counter()
        PHASE[phase](options, materials, console)
        console.print(f"{phase}: {time.perf_counter() - started:.0f} s")
    found = results.gathered(materials, options.tools, source)
    return report(options, found, console)


def quantize(
    options: argparse.Namespace, materials: Sequence[material.Material], console: Console
) -> None:
    """Run every cell."""
    for setting in options.tools:
        environments.python(SETTINGS[setting].environment)
    memory = min(int(MEMORY * GIB), measure.available() - LEFT)
    limits = Limits(memory, options.seconds)
    for one in materials:
        for setting in options.tools:
            if one.form not in SETTINGS[setting].forms:
                continue
            if setting in options.again:
                shutil.rmtree(one.cell(setting), ignore_errors=True)  # a run would go on
            outcome = quantizing.quantized(one, setting, limits)
            console.print(
                f"{one.folder.name} {setting}: {outcome['end']} {outcome['error']} "
                f"{outcome['seconds']:.1f} s of {outcome['process_seconds']:.1f}, "
                f"{outcome['peak_bytes'] / GIB:.2f} GiB",
                soft_wrap=True,
            )


def judge(
    options: argparse.Namespace, materials: Sequence[material.Material], console: Console
) -> None:
    """Judge every model that there is."""
    for one in materials:
        for setting in made(one, options.tools):
            found = judging.judged(one, setting)
            told = found.get("metrics", {}).get(one.task.metric, found)
            console.print(f"{one.folder.name} {setting}: {told}", soft_wrap=True)


def confirm(
    options: argparse.Namespace, materials: Sequence[material.Material], console: Console
) -> None:
    """Judge what has a limit on the whole test split, and against the best peer on the rest."""
    source = options.source
    for own, peer in confirming.asked(results.gathered(materials, options.tools, source)):
        one = next(m for m in materials if (m.name, m.form) == own.key)
        rival = None if peer is None else peer.setting
        found = confirming.confirmed(one, own.setting, rival, source)
        console.print(f"{one.folder.name} {own.setting}: {found}", soft_wrap=True)


def timed(
    options: argparse.Namespace, materials: Sequence[material.Material], console: Console
) -> None:
    """Time the models of the forms that are timed."""
    schedule = timing.Schedule(openings=options.openings)
    for one in materials:
        if one.form in options.timed:
            found = timing.timed(one, made(one, options.tools), schedule)
            count = len(found["openvino"]) - 1
            console.print(f"{one.folder.name}: {count} unlike INT8 models", soft_wrap=True)


def build(
    options: argparse.Namespace, materials: Sequence[material.Material], console: Console
) -> None:
    """Build a plan of what quantlab made for TensorRT."""
    for one in materials:
        for setting in made(one, [name for name in options.tools if for_tensorrt(name)]):
            found = building.built(one, setting)
            console.print(f"{one.folder.name} {setting}: TensorRT-RTX {found}", soft_wrap=True)


PHASE = {"quantize": quantize, "judge": judge, "confirm": confirm, "time": timed, "build": build}


def made(one: material.Material, settings: Sequence[str]) -> list[str]:
    """Return the settings whose INT8 model is there."""
    return [s for s in settings if (one.cell(s) / INT8).exists()]


def report(options: argparse.Namespace, found: results.Results, console: Console) -> int:
    """Print tables and what is missed, write the results; return the exit code."""
    checked = list(held.figures(found))
    everything = (list(NETWORKS), list(FORMS), list(SETTINGS), list(PHASES))
    whole = (options.networks, options.forms, options.tools, options.phase) == everything
    path = results.PATH if whole else options.work / "part.json"
    found.save(path, checked)
    for name, rows in tables.groups(found).items():
        console.print(terminal(name, tables.ACCURACY, tables.accuracy(rows)))
        if lines := tables.speed(found, rows):
            console.print(terminal(f"{name}: speed", tables.SPEED, lines))
    console.print(terminal("Figures", tables.FIGURES, tables.figures(checked)))
    console.print(f"written: {path}", soft_wrap=True)
    missed, broken = held.missed(checked), held.broken(found)
    for name in missed:
        console.print(f"[bold]MISSED[/bold] {name}", soft_wrap=True)
    for text in broken:
        console.print(f"[bold]NO MODEL[/bold] {text}", soft_wrap=True)
    return 1 if missed or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
