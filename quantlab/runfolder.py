"""The run folder: one run at a time, and steps that are done once.

run.json keeps, for every finished step, what it was made from (its key) and the SHA-256 of what it
wrote.  A step whose key and files are as recorded need not run again, so a run that was killed goes
on behind its last finished step.  run.json itself is replaced whole after each step.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from quantlab.errors import OutputError
from quantlab.files import sha256, translated, write

FORMAT = 1

FOLDERS = ("", "engines", "methods", "tables")
"""Where a run writes: the run folder itself and what it makes inside."""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished step, as run.json keeps it.

    Attributes:
        made_from: everything that its result depends on, as JSON-able values.
        files: SHA-256 of each file it wrote, by path in the run folder.
        seconds: that it took.
        finished: time, ISO 8601 with offset.
    """

    made_from: dict[str, Any]
    files: dict[str, str]
    seconds: FiniteFloat
    finished: str


_STEPS = TypeAdapter(dict[str, Done])


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An opened run folder; use ``opened``."""

    path: Path

    def facts(self) -> dict[str, Any]:
        """Return run.json's content."""
        path = self.path / "run.json"
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return {"format": FORMAT, "steps": {}}
        except (OSError, ValueError, RecursionError) as error:
            raise OutputError(
                f"cannot read {path}: {error}; delete it to start this run anew"
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise OutputError(
                f"{path}: expected format {FORMAT}; it was written by another "
                "version of quantlab; choose another folder with 'output:'"
            )
        return found

    def steps(self) -> dict[str, Done]:
        """Return the finished steps."""
        try:
            return _STEPS.validate_python(self.facts().get("steps"))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, ("steps", *first["loc"])))
            raise OutputError(
                f"{self.path / 'run.json'}: {where}: {first['msg']}; "
                "delete it to start this run anew"
            ) from error

    def note(self, facts: Mapping[str, Any]) -> None:
        """Merge ``facts`` into run.json."""
        self._save(self.facts() | dict(facts))

    def seconds(self) -> dict[str, float]:
        """Return how long each finished step took."""
        return {name: step.seconds for name, step in self.steps().items()}

    def stale(self, name: str, made_from: Mapping[str, Any]) -> str | None:
        """Say why step ``name`` must run, or None if what it wrote still stands."""
        step = self.steps().get(name)
        if step is None:
            return "not done yet"
        now = _plain(made_from)
        keys = sorted(
            key for key in {*now, *step.made_from} if now.get(key) != step.made_from.get(key)
        )
        if keys:
            return f"{', '.join(keys)} changed"
        for file, digest in step.files.items():
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
        finished = datetime.now(UTC)
        done = Done(
            made_from=_plain(made_from),
            files={str(file.relative_to(self.path)): sha256(file) for file in files},
            seconds=(finished - started).total_seconds(),
            finished=finished.isoformat(timespec="milliseconds"),
        )
        self._record(self.steps() | {name: done})
        return True

    def forget(self, name: str) -> None:
        """Make step ``name`` run again."""
        self._record({other: done for other, done in self.steps().items() if other != name})

    def drop(self, name: str) -> None:
        """Remove what step ``name`` wrote, and its record: it is not asked for any more."""
        done = self.steps().get(name)
        if done is not None:
            self.forget(name)
            for file in done.files:
                (self.path / file).unlink(missing_ok=True)

    def _record(self, steps: dict[str, Done]) -> None:
        self.note({"steps": _STEPS.dump_python(steps)})

    def _save(self, facts: Mapping[str, Any]) -> None:
        write(self.path / "run.json", json.dumps(facts, indent=1) + "\n")


@contextmanager
def opened(path: Path) -> Iterator[RunFolder]:
    """Make the folder, take its lock, and give it to one run.

    Raises:
        OutputError: it cannot be written, or another run is using it.
    """
    lock = FileLock(path / ".lock")
    with translated(path):
        (path / "engines").mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "permission denied")
        _take(lock, path)
    try:
        _tidy(path)
        yield RunFolder(path)
    finally:
        lock.release()


def _take(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"{path} is in use by another run; wait for it, or choose another folder with 'output:'"
        ) from error


def _tidy(path: Path) -> None:
    """Remove what a run that was killed left half-written."""
    for folder in FOLDERS:
        for left in (path / folder).glob(".*.partial*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Return the value as JSON reads it back."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))
