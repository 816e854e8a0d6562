"""The process that talks to Ray: units go to whichever worker is free, parts come back.

    python -P -m quantlab.collect.ray_driver DESCRIPTOR FOLDER

The descriptor is a pipe to the coordinator (collect.ray): a Task comes in, then go out one
Connected, a Part for each unit, or a Failure.  The pipe's end is the sign to stop, and to remove
the temporary folder: the coordinator may have been killed.
"""

import logging
import pickle
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from quantlab.collect.ray_messages import Connected, Failure, Task
from quantlab.collect.ray_worker import ModelFile, stamp
from quantlab.collect.work import Part, Unit
from quantlab.errors import EngineError, QuantlabError
from quantlab.graph.files import files

DEATHS = 3
"""Workers that a unit, or the opening of the samples, may end before it is given up."""

PLACED = 300.0
"""Seconds for the cluster to find a place for at least one worker."""

TICK = 0.2
"""Seconds between two looks at the pipe."""

STORE = 256 << 20
"""Bytes of the object store of a cluster on this machine: parts pass through it."""

CLOSE = 1.0
"""Seconds for workers to remove what was copied."""

Greeting = dict[str, str]


def actor_class() -> type[Any]:
    """Return the class of the workers.

    It is made in a function, so that Ray sends its code and not its name: a node's quantlab may be
    another one, or none.
    """

    class Actor:
        def greet(self, folder: str, path: tuple[str, ...]) -> Greeting:
            """Look where the coordinator looks, and tell what is here."""
            import contextlib
            import os
            import sys

            with contextlib.suppress(OSError):
                os.chdir(folder)
            sys.path.extend(entry for entry in path if entry not in sys.path)
            return self.versions()

        @staticmethod
        def versions() -> Greeting:
            """Return what has to be the same everywhere, and the node's name."""
            import platform
            from importlib import import_module

            found = {"node": platform.node(), "Python": platform.python_version_tuple()[0]}
            for name in ("quantlab", "numpy", "onnxruntime"):
                try:
                    version = str(import_module(name).__version__)
                except ImportError as error:
                    version = f"none ({error})"
                found[name] = version.split(".")[0] if name == "numpy" else version
            return found

        def open(self, work: bytes, files: list[Any]) -> object:
            """Open a worker."""
            import pickle

            from quantlab.collect.ray_worker import RayWorker

            self._worker = RayWorker()
            return self._worker.open(pickle.loads(work), files)  # noqa: S301  the coordinator's

        def part(self, unit: Any) -> object:
            """Do a unit."""
            return self._worker.part(unit)

        def close(self) -> None:
            """Remove what was copied here."""
            self._worker.close()

    return Actor


class Failed(Exception):
    """A worker's error on its way to the coordinator."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Call:
    """What a worker was asked for: a unit, or one of the steps until it can do any."""

    actor: Any
    asked: Unit | str


class Pool:
    """The workers; one that dies is replaced, and its unit done again."""

    def __init__(self, task: Task, send: Callable[[Part], None]) -> None:
        """Make a pool; Ray is connected.

        Args:
            task: what to do.
            send: takes the parts.
        """
        self._ray = import_module("ray")
        self._task = task
        self._send = send
        kind = actor_class()
        self._expected: Greeting = kind.versions()
        self._kind = self._ray.remote(kind).options(num_cpus=task.threads)
        self._work = pickle.dumps(task.work)
        self._files = list(_model_files(task))
        self._waiting = deque(task.units)
        self._calls: dict[Any, Call] = {}
        self._idle: list[Any] = []
        self._deaths: Counter[Unit | str] = Counter()

    def run(self, stopped: Callable[[], bool]) -> None:
        """Do the units; return when all are done, or ``stopped()`` is true.

        Raises:
            EngineError: a unit ended its worker DEATHS times, versions differ, or there is no place
                for a worker.
            Failed: a worker raised an error.
        """
        for _ in range(self._task.workers):
            self._start()
        since = time.monotonic()
        while self._waiting or any(isinstance(c.asked, Unit) for c in self._calls.values()):
            ready, _ = self._ray.wait([*self._calls], timeout=TICK)
            if stopped():
                return
            for reference in ready:
                self._finish(reference)
            if ready or any(call.asked != "greet" for call in self._calls.values()):
                since = time.monotonic()
            if time.monotonic() - since > PLACED:
                raise EngineError(self._no_place())

    def close(self) -> None:
        """End the workers; those that are free remove what was copied to their nodes."""
        closing = [actor.close.remote() for actor in self._idle]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE)
        for actor in (*self._idle, *(call.actor for call in self._calls.values())):
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._kind.remote()
        self._call(actor, "greet", actor.greet.remote(self._task.folder, self._task.path))

    def _call(self, actor: Any, asked: Unit | str, reference: Any) -> None:
        self._calls[reference] = Call(actor, asked)

    def _finish(self, reference: Any) -> None:
        """Take a worker's answer, and give it what comes next."""
        errors = self._ray.exceptions
        call = self._calls.pop(reference)
        try:
            answer = self._ray.get(reference)
        except errors.RayTaskError as error:
            if not isinstance(error.cause, MemoryError):
                raise EngineError(f"a worker of the Ray cluster failed: {error.cause}") from error
            self._replace(call, error)
            return
        except errors.RayError as error:
            self._replace(call, error)
            return
        if isinstance(answer, Failure):
            raise Failed(answer)
        if not isinstance(call.asked, Unit):
            self._deaths[call.asked] = 0
        if call.asked == "greet":
            self._check(answer)
            self._call(call.actor, "open", call.actor.open.remote(self._work, self._files))
            return
        if isinstance(answer, Part):
            self._send(answer)
        self._give(call.actor)

    def _give(self, actor: Any) -> None:
        if not self._waiting:
            self._idle.append(actor)
            return
        unit = self._waiting.popleft()
        self._call(actor, unit, actor.part.remote(unit))

    def _replace(self, call: Call, error: Exception) -> None:
        """Put a new worker in the place of one that died."""
        self._ray.kill(call.actor)  # one that is only out of reach must not go on
        self._deaths[call.asked] += 1
        if self._deaths[call.asked] >= DEATHS:
            raise EngineError(self._given_up(call.asked, error)) from error
        if isinstance(call.asked, Unit):
            self._waiting.appendleft(call.asked)
        if self._idle:
            self._give(self._idle.pop())
        else:
            self._start()

    def _given_up(self, asked: Unit | str, error: Exception) -> str:
        what = "starting a worker" if asked == "greet" else "opening the samples"
        if isinstance(asked, Unit):
            start, stop = self._task.work.places(asked.shard)
            what = f"samples {start} to {stop - 1}"
        return (
            f"{what}: {DEATHS} workers died one after another, the last with: {_cause(error)}.  "
            "Run them with 'executor: {kind: local}' to see what happens, or give the workers "
            "more memory"
        )

    def _check(self, found: Greeting) -> None:
        """Raise EngineError if a node has other versions than this process."""
        for name, expected in self._expected.items():
            if name != "node" and found[name] != expected:
                raise EngineError(
                    f"node {found['node']} has {name} {found[name]}, the coordinator "
                    f"{self._expected['node']} has {expected}; install the same on all nodes and "
                    "restart Ray there: others may give other histograms"
                )

    def _no_place(self) -> str:
        there = self._ray.cluster_resources().get("CPU", 0)
        return (
            f"the Ray cluster started no worker in {PLACED:.0f} s: one takes "
            f"{self._task.threads} cores ('executor.threads'), the cluster has {there:g} in all; "
            "see 'ray status'"
        )


def _model_files(task: Task) -> Iterator[ModelFile]:
    """Yield the model's files; their bytes are put into the object store of other clusters."""
    ray = import_module("ray")
    model = task.work.model
    for path in files(model):
        content = None if task.address is None else ray.put(path.read_bytes())
        yield ModelFile(str(path.relative_to(model.parent)), stamp(path) or (), content)


def _cause(error: Exception) -> str:
    """Return what Ray says of a death, in one line and without its advice."""
    text = str(getattr(error, "cause", None) or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if "Worker exit detail: " in line), lines[-1])
    return (
        told.rpartition("Worker exit detail: ")[2].partition("  Some common causes")[0].rstrip(".")
    )


def connect(task: Task) -> str:
    """Join the cluster, or start one; return its head's address.

    Raises:
        EngineError: Ray cannot.
    """
    ray = import_module("ray")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if task.address is not None:
            ray.init(address=task.address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=task.workers * task.threads,
                num_gpus=0,
                object_store_memory=STORE,
                include_dashboard=False,
                _temp_dir=task.temporary,
                **quiet,
            )
    except (RuntimeError, ValueError, OSError) as error:  # a ConnectionError is an OSError
        where = f"join the Ray cluster at {task.address}" if task.address else "start Ray"
        raise EngineError(f"cannot {where}: {error}") from error
    return str(ray.get_runtime_context().gcs_address)


def main(arguments: Sequence[str]) -> None:
    """Do one task."""
    with Connection(int(arguments[0])) as connection:
        task: Task = connection.recv()
        try:
            connection.send(Connected(connect(task)))
            pool = Pool(task, connection.send)
            try:
                pool.run(connection.poll)
            finally:
                pool.close()
        except Failed as failed:
            connection.send(failed.failure)
        except QuantlabError as error:
            connection.send(Failure.of(error))
        connection.poll(None)
        import_module("ray").shutdown()
    shutil.rmtree(arguments[1], ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
