"""A worker on a node of a Ray cluster."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quantlab.collect import memory
from quantlab.collect.ray_messages import Failure
from quantlab.collect.work import Part, Unit, Work
from quantlab.collect.worker import Worker, host_lanes
from quantlab.errors import DataError, EngineError


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One of the model's files, as the coordinator has it.

    Attributes:
        name: relative to the folder of the model.
        stamp: inode, size and time of the last change: a node that sees these sees this file.
        content: reference to its bytes in the cluster's object store; None if all workers are on
            the coordinator's machine.
    """

    name: str
    stamp: tuple[int, ...]
    content: Any


class RayWorker:
    """Does units on this node; errors are returned, because Ray would wrap what is raised."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def open(self, work: Work, files: Sequence[ModelFile]) -> Failure | None:
        """Open the dataset, and get the model if this node does not see it."""
        memory.forget_peak()
        try:
            work = replace(work, model=self._model(work.model, files))
            self._worker = self._stack.enter_context(Worker(work, host_lanes))
        except DataError as error:
            elsewhere = DataError(
                f"node {socket.gethostname()}: {error}; every node must be able to read the "
                "samples: keep them where all nodes see them under the same path"
            )
            elsewhere.__cause__ = error
            return Failure.of(elsewhere)
        except Exception as error:  # noqa: BLE001  of a dataset's function too, for its author
            return Failure.of(error)
        return None

    def part(self, unit: Unit) -> Part | Failure:
        """Do a unit."""
        try:
            return self._worker.part(unit)
        except MemoryError:
            raise  # the node's trouble, not the unit's: done again
        except Exception as error:  # noqa: BLE001  as above
            return Failure.of(error)

    def close(self) -> None:
        """Close the dataset and remove what was copied."""
        self._stack.close()

    def _model(self, path: Path, files: Sequence[ModelFile]) -> Path:
        """Return where this node has the model."""
        if all(stamp(path.parent / file.name) == file.stamp for file in files):
            return path
        if any(file.content is None for file in files):
            raise EngineError(f"{path} was changed while it was used; run the same command again")
        ray = import_module("ray")
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="quantlab-")))
        for file in files:
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ray.get(file.content))
        return folder / path.name


def stamp(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from others: inode, size, time of change; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
