"""The executor ``ray``: worker processes of a Ray cluster, on this machine or on many.

    executor: {kind: ray, workers: 8, address: "head:6379"}

Ray is spoken to by a process of its own (ray_driver), because Ray ends the process it lives in when
its cluster is gone.  Here that process is started, listened to and ended, and the cluster's head is
asked once a second whether it is still there.
"""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.connection import Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import psutil

from quantlab.collect.ray_messages import Connected, Failure, Task
from quantlab.collect.work import Part, Unit, Work
from quantlab.errors import ConfigError, EngineError, EngineUnavailable
from quantlab.progress import Advance

REACH = 5.0
"""Seconds for the head to take a connection."""

CONNECT = 30.0
"""Seconds for Ray to join a cluster whose head can be reached; about 2 are usual."""

START = 180.0
"""Seconds for a cluster on this machine to start; 5 to 15 are usual."""

LOST = 10.0
"""Seconds after which a head that takes no connection is given up: time for one to restart."""

LEAVE = 10.0
"""Seconds for the workers to be ended when all is done."""

TICK = 1.0
"""Seconds between two looks at the head."""

LONGEST_FOLDER = 40
"""Characters of a temporary folder that Ray's socket names, of 107 at most, leave room for."""

DRIVER = (sys.executable, "-P", "-m", "quantlab.collect.ray_driver")

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
"""Of the process that talks to Ray: no reports to Ray's makers."""


@dataclass(frozen=True, slots=True)
class Ray:
    """A Ray cluster; each worker runs the model on a node's CPU and reads its own samples.

    Attributes:
        workers: worker processes.
        address: head of a running cluster, "host:port", or "auto" for the one that this machine
            belongs to; left out, one is started on this machine and ended afterwards.
        threads: cores of a worker.
    """

    name: ClassVar[str] = "ray"
    device: ClassVar[str] = "cpu"
    distributed: ClassVar[bool] = True

    workers: int = 2
    address: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for no worker, no thread, or an address of another form."""
        for key, value in (("workers", self.workers), ("threads", self.threads)):
            if value < 1:
                raise ConfigError(f"{key}: expected 1 or more, got {value}", key)
        if self.address not in (None, "auto") and not re.fullmatch(
            r"[^\s:/]+:\d{1,5}", self.address or ""
        ):
            raise ConfigError(
                f"address: expected 'auto' or 'host:port', got {self.address!r}; leave it out to "
                "start a cluster on this machine",
                "address",
            )

    def available(self) -> str:
        """Return Ray's version.

        Raises:
            EngineUnavailable: it is not installed.
        """
        if find_spec("ray") is None:
            raise EngineUnavailable(
                "executor 'ray' needs the package ray; pip install 'quantlab[ray]'"
            )
        return f"Ray {version('ray')}"

    def cores(self) -> int:
        """Return how many cores a worker uses."""
        return self.threads

    def parts(self, work: Work, units: Sequence[Unit], advance: Advance) -> Iterator[Part]:
        """Do the units on the cluster; they come back in the order in which they are done.

        Raises:
            EngineError: the cluster cannot be reached or was lost, a node has other versions, or a
                unit ended its worker several times.
            QuantlabError: what a worker raised.
        """
        if not units:
            return
        if self.address not in (None, "auto"):
            _reach(str(self.address))
        with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            task = Task(
                work=work,
                units=tuple(units),
                workers=min(self.workers, len(units)),
                threads=self.threads,
                address=self.address,
                temporary=folder if len(folder) <= LONGEST_FOLDER else None,
                folder=os.getcwd(),  # noqa: PTH109  a string, to be sent
                path=tuple(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100
            )
            driver = Driver(task, Path(folder))
            try:
                for part in driver.parts():
                    advance(part.samples)
                    yield part
            finally:
                driver.stop()


class Driver:
    """The process that talks to Ray, as seen from here."""

    def __init__(self, task: Task, folder: Path) -> None:
        """Start it and give it its task.

        Args:
            task: what to do.
            folder: for its output.
        """
        self._task = task
        self._where = f"at {task.address}" if task.address else "on this machine"
        self._log = folder / "driver.log"
        self._connection, theirs = Pipe()
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C is for this process, and whatever Ray starts is found.
            self._process = subprocess.Popen(  # noqa: S603  ourselves
                [*DRIVER, str(theirs.fileno()), str(folder)],
                cwd=folder,
                env=os.environ | ENVIRONMENT | ({} if task.address else _private()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        self._done = 0

    def parts(self) -> Iterator[Part]:
        """Yield the parts as they come.

        Raises:
            EngineError: as ``Ray.parts``.
            QuantlabError: what a worker raised.
        """
        self._send()
        head = self._connected()
        while self._done < len(self._task.units):
            message = self._receive(head)
            if isinstance(message, Part):
                self._done += 1
                yield message

    def stop(self) -> None:
        """End it and all that it started on this machine."""
        self._connection.close()
        # A cluster that is its own has nobody to say goodbye to; workers elsewhere tidy up.
        if self._task.address is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE)
        while left := _session(self._process.pid):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TICK / 10)
        self._process.wait()

    def _send(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died: seen when it is listened to
            self._connection.send(self._task)

    def _connected(self) -> str:
        """Wait until it has joined the cluster; return the head's address."""
        limit = START if self._task.address is None else CONNECT
        if not self._connection.poll(limit):
            self._process.kill()  # it would go on trying
            raise EngineError(
                f"no Ray cluster answered {self._where} within {limit:.0f} s{self._last_words()}; "
                "see 'ray status' on its head"
            )
        try:
            message = self._next()
        except EngineError as error:
            raise EngineError(f"{error}{self._last_words()}") from error
        assert isinstance(message, Connected)  # noqa: S101  its first message, unless it failed
        return message.address

    def _receive(self, head: str) -> object:
        """Return the next message; look whether the head is there as long as none comes."""
        seen = time.monotonic()
        while not self._connection.poll(TICK):
            if _reachable(head):
                seen = time.monotonic()
            elif time.monotonic() - seen > LOST:
                self._process.kill()  # it waits for a cluster that is gone
                raise self._lost("its head does not answer")
        return self._next()

    def _next(self) -> object:
        try:
            message = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._lost(f"its connection broke{self._last_words()}") from None
        if isinstance(message, Failure):
            message.throw()
        return message

    def _lost(self, reason: str) -> EngineError:
        return EngineError(
            f"lost the Ray cluster {self._where}: {reason}.  {self._done} of "
            f"{len(self._task.units)} shards had come back; the checkpoint keeps what was done, "
            "and the same command goes on from it as soon as the cluster is there again, or "
            "without one with 'executor: {kind: local}'"
        )

    def _last_words(self) -> str:
        """Return the last line that it wrote, in brackets, if it wrote any."""
        lines = self._log.read_text(errors="replace").split("\n")
        found = [line.strip() for line in lines if line.strip()]
        return f" ({found[-1]})" if found else ""


def _private() -> dict[str, str]:
    """Return settings that keep others out of a cluster on this machine: a token of its own."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _session(leader: int) -> list[int]:
    """Return the processes of a session that are alive."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if os.getsid(process.pid) == leader and alive:
                found.append(process.pid)
    return found


def _reach(address: str) -> None:
    """Raise EngineError if nothing takes a connection there."""
    if not _reachable(address):
        raise EngineError(
            f"cannot reach a Ray cluster at {address}; start one there with 'ray start --head "
            f"--port {address.rpartition(':')[2]}', or correct 'executor.address'"
        )


def _reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=REACH):
            return True
    except (OSError, OverflowError):  # a port beyond 65535
        return False
