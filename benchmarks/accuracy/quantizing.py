"""The first phase: every setting quantizes every network, each in a process of its own."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.request import INT8
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.stored import Found, digest, once
from benchmarks.peers import environments, process
from benchmarks.peers.cell import End
from quantlab.engines.host import usable_cores

LONGEST = 300
"""Characters of an error that are kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a process cost.

    Attributes:
        end: how it ended.
        seconds: of the call, imports excluded; 0 if not finished.
        process_seconds: of the process.
        peak_bytes: its largest resident memory.
        cores: that it could use.
        versions: of the packages that took part.
        error: what a failed process said last.
    """

    end: End
    seconds: float
    process_seconds: float
    peak_bytes: int
    cores: int
    versions: dict[str, str]
    error: str


def quantized(material: Material, setting: str, limits: process.Limits) -> Found:
    """Run a cell that has not been run with this material yet, and return its Outcome."""
    folder = material.cell(setting)
    folder.mkdir(exist_ok=True)
    options = json.loads(json.dumps(dict(SETTINGS[setting].options)))
    key = {
        "model": digest(material.model),
        "samples": digest(material.folder / "calibration.npz"),
        "options": options,
    }
    return once(
        folder / "quantized.json", key, lambda: asdict(_run(material, setting, folder, limits))
    )


def _run(material: Material, setting: str, folder: Path, limits: process.Limits) -> Outcome:
    (folder / INT8).unlink(missing_ok=True)
    (folder / "cost.json").unlink(missing_ok=True)
    interpreter = environments.python(SETTINGS[setting].environment)
    request = material.request(setting).write()
    command = (interpreter, "-W", "ignore", "-m", "benchmarks.accuracy.child", request)
    usage = process.run(command, folder / "log", cwd=environments.ROOT, limits=limits)
    cost: dict[str, Any] = {}
    if usage.end == "finished":
        cost = json.loads((folder / "cost.json").read_text())
    return Outcome(
        end=usage.end,
        seconds=cost.get("seconds", 0.0),
        process_seconds=usage.seconds,
        peak_bytes=max(usage.peak_bytes, cost.get("peak_bytes", 0)),
        cores=usable_cores(),
        versions=cost.get("versions", {}),
        error=_said(folder / "log") if usage.end == "failed" else "",
    )


def _said(log: Path) -> str:
    """Return the last line that names an error, or the last at all."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(" ")[0]]
    last = " ".join((errors or lines or [""])[-1].split())
    return last.replace(f"{environments.ROOT}/", "").replace(str(log.parent), "")[:LONGEST]
