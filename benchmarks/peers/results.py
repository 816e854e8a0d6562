"""The outcomes on disk: written after every process, so that a run that was stopped goes on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.cell import Cell, Outcome
from benchmarks.peers.environments import ROOT
from quantlab.engines.host import host
from quantlab.files import write

RESULTS = ROOT / "benchmarks" / "results"


FACTS = ("cpu", "architecture", "flags", "usable_cores", "memory_bytes", "python")
"""What is told of the machine."""


def _machine() -> dict[str, Any]:
    facts = host()
    return {name: facts[name] for name in FACTS}


@dataclass(slots=True)
class Results:
    """All outcomes of a run, in order.

    Attributes:
        batch: images at once, for every tool.
        memory_limit: bytes at which a process was killed.
        host: the machine.
        outcomes: one a process.
    """

    batch: int
    memory_limit: int
    host: dict[str, Any] = field(default_factory=_machine)
    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, cell: Cell, *, finished: bool = True) -> list[Outcome]:
        """Return a cell's outcomes, those that finished or all."""
        found = [outcome for outcome in self.outcomes if outcome.cell == cell]
        return [o for o in found if o.end == "finished"] if finished else found

    def cells(self) -> list[Cell]:
        """Return the cells that have an outcome, in order."""
        return list(dict.fromkeys(outcome.cell for outcome in self.outcomes))

    def save(self, path: Path, figures: Sequence[dict[str, Any]] = ()) -> None:
        """Write everything as JSON."""
        content = asdict(self) | {"figures": list(figures)}
        write(path, json.dumps(content, indent=1) + "\n")


def load(path: Path) -> Results:
    """Read what ``save`` wrote, failures left out; the figures are computed again."""
    content = json.loads(path.read_text())
    del content["figures"]
    outcomes = [
        Outcome(**outcome | {"cell": Cell(**outcome["cell"])})
        for outcome in content["outcomes"]
        if outcome["end"] != "failed"
    ]
    return Results(**content | {"outcomes": outcomes})
