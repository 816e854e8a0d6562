"""Running cells: each in a fresh process of the tool's own environment, tool after tool."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers import environments, process
from benchmarks.peers.cell import SEARCHES, TOOLS, Cell, Outcome
from benchmarks.peers.material import SEARCHED, Material

QUICK = 10.0
"""Seconds of process; cells under it are repeated."""

REPEATS = 3


def cells(model: str, images: Sequence[int], tools: Sequence[str]) -> list[list[Cell]]:
    """Return groups of cells that are compared: their repeats go in turns."""
    groups = [[Cell(t, model, count) for t in tools if t in TOOLS] for count in images]
    groups.append([Cell(t, model, SEARCHED) for t in tools if t in SEARCHES])
    return [group for group in groups if group]


def measured(
    group: Sequence[Cell], done: Sequence[Outcome], measure: Callable[[Cell], Outcome]
) -> Iterator[Outcome]:
    """Yield outcomes of what ``done`` lacks: one for each cell, then repeats of the quick ones."""
    found = {cell: [o for o in done if o.cell == cell] for cell in group}
    for turn in range(REPEATS):
        for cell, outcomes in found.items():
            if len(outcomes) > turn or (outcomes and not _again(outcomes[0])):
                continue
            outcome = measure(cell)
            outcomes.append(outcome)
            yield outcome


def _again(first: Outcome) -> bool:
    once = first.cell.tool in SEARCHES and first.cell.tool != "search-quantlab"
    return first.end == "finished" and first.process_seconds < QUICK and not once


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the cells of a model are run.

    Attributes:
        material: the model's files.
        batch: images at once.
        limits: of each process.
    """

    material: Material
    batch: int
    limits: process.Limits

    def run(self, cell: Cell) -> Outcome:
        """Run one cell and return what it cost."""
        interpreter = environments.python((TOOLS | SEARCHES)[cell.tool].environment)
        with TemporaryDirectory() as name:
            folder = Path(name)
            request = self.material.request(
                cell.tool, images=cell.images, batch=self.batch, folder=folder
            )
            usage = process.run(
                (interpreter, "-W", "ignore", "-m", "benchmarks.peers.child", request.write()),
                folder / "log",
                cwd=environments.ROOT,
                limits=self.limits,
            )
            return _outcome(cell, usage, folder)


def _outcome(cell: Cell, usage: process.Usage, folder: Path) -> Outcome:
    cost, read = _json(folder / "cost.json"), _json(folder / "images_read")
    failed = usage.end == "failed"
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return Outcome(
        cell=cell,
        end=usage.end,
        tensors=cost.get("tensors", 0),
        seconds=cost.get("seconds", 0.0),
        process_seconds=usage.seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_bytes=max(usage.peak_bytes, cost.get("peak_bytes", 0)),
        start_bytes=cost.get("start_bytes", 0),
        images_read=read or 0,
        milliseconds=cost.get("milliseconds", {}),
        versions=cost.get("versions", {}),
        error=lines[-1].replace(f"{environments.ROOT}/", "") if failed and lines else "",
    )


def available() -> int:
    """Return the bytes of memory that processes can still have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * process.KIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else {}
