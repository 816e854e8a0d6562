"""The run folder: one run at a time, and steps that are done once.

run.json keeps, for every finished step, what it was made from (its key) and the SHA-256 of what it
wrote.  A step whose key and files are as recorded need not run again, so a run that was killed goes
on behind its last finished step.  run.json itself is replaced whole after each step.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from quantlab.errors import OutputError
from quantlab.files import sha256, translated, write

FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An opened run folder; use ``opened``."""

    path: Path

    def facts(self) -> dict[str, Any]:
        """Return run.json's content."""
        try:
            found = json.loads((self.path / "run.json").read_text())
        except FileNotFoundError:
            return {"format": FORMAT, "steps": {}}
        except (OSError, ValueError) as error:
            raise OutputError(
                f"cannot read {self.path / 'run.json'}: {error}; delete it to start this run anew"
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise OutputError(
                f"{self.path / 'run.json'}: expected format {FORMAT}; it was written by another "
                "version of quantlab; choose another folder with 'output:'"
            )
        return found

    def note(self, facts: Mapping[str, Any]) -> None:
        """Merge ``facts`` into run.json."""
        self._save(self.facts() | dict(facts))

    def seconds(self) -> dict[str, float]:
        """Return how long each finished step took."""
        return {name: step["seconds"] for name, step in self.facts()["steps"].items()}

    def stale(self, name: str, made_from: Mapping[str, Any]) -> str | None:
        """Say why step ``name`` must run, or None if what it wrote still stands."""
        step = self.facts()["steps"].get(name)
        if step is None:
            return "not done yet"
        now = _plain(made_from)
        if step["made_from"] != now:
            keys = sorted(
                k for k in {*now, *step["made_from"]} if now.get(k) != step["made_from"].get(k)
            )
            return f"{', '.join(keys)} changed"
        for file, digest in step["files"].items():
            path = self.path / file
            if not path.is_file():
                return f"{file} is missing"
            if sha256(path) != digest:
                return f"{file} was altered"
        return None

    def step(
        self,
        name: str,
        made_from: Mapping[str, Any],
        work: Callable[[], Sequence[Path]],
    ) -> bool:
        """Do a step unless it is done; return whether it ran.

        Args:
            name: of the step.
            made_from: everything that its result depends on, as JSON-able values.
            work: does it and returns the files it wrote, inside this folder.
        """
        if self.stale(name, made_from) is None:
            return False
        started = datetime.now(UTC)
        files = work()
        seconds = (datetime.now(UTC) - started).total_seconds()
        facts = self.facts()
        facts["steps"][name] = {
            "made_from": _plain(made_from),
            "files": {str(f.relative_to(self.path)): sha256(f) for f in files},
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._save(facts)
        return True

    def forget(self, name: str) -> None:
        """Make step ``name`` run again."""
        facts = self.facts()
        facts["steps"].pop(name, None)
        self._save(facts)

    def _save(self, facts: Mapping[str, Any]) -> None:
        write(self.path / "run.json", json.dumps(facts, indent=1) + "\n")


@contextmanager
def opened(path: Path) -> Iterator[RunFolder]:
    """Make the folder, take its lock, and give it to one run.

    Raises:
        OutputError: it cannot be written, or another run is using it.
    """
    with translated(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / "engines").mkdir(exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "permission denied")
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"{path} is in use by another run; wait for it, or choose another folder with 'output:'"
        ) from error
    try:
        for left in path.rglob(".*.partial*"):
            left.unlink(missing_ok=True)
        yield RunFolder(path)
    finally:
        lock.release()


def _plain(value: Any) -> Any:
    """Return the value as JSON reads it back."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))
