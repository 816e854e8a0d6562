"""A Ray cluster in tests, and samples whose reading goes wrong where a test says so."""

import os
import secrets
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.runs import FAST, workspace

PATIENCE = 60.0
"""Seconds until something that does not happen has failed its test."""

FILES = ("histograms.npz", "batch_amax.npz", "calibration.cache")


@dataclass(frozen=True)
class Cluster:
    """A head on this machine.

    Attributes:
        address: of it.
        site: folder from which its workers import first.
        leader: process whose session holds all of it.
    """

    address: str
    site: Path
    leader: int

    def kill_head(self) -> None:
        """Kill the head's server; what else runs on its node stays."""
        [server] = [p for p in session(self.leader) if "gcs_server" in p.name()]
        server.kill()


def session(leader: int) -> list[psutil.Process]:
    """Return the processes of a session that are alive."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def secret() -> dict[str, str]:
    """Return settings of a cluster that no one else can use; whoever does needs the same."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """Start a head with two cores and end it."""
    site = folder / "site"
    site.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    options = ["--num-cpus=2", "--num-gpus=0", f"--port={port}", "--include-dashboard=false"]
    options += [f"--object-store-memory={100 << 20}"]
    environment = os.environ | {"PYTHONPATH": str(site), "RAY_USAGE_STATS_ENABLED": "0"}
    # Not in ``folder``: the names of Ray's sockets take 62 of the 107 characters there are.
    temporary = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            [*command, *options, f"--temp-dir={temporary.name}"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: "Ray runtime started" in (folder / "head.log").read_text(), head)
        yield Cluster(f"127.0.0.1:{port}", site, head.pid)
    finally:
        while left := session(head.pid):
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            with suppress(subprocess.TimeoutExpired):
                head.wait(0.1)
        head.wait()
        temporary.cleanup()


def until(
    condition: Callable[[], object], process: subprocess.Popen[bytes] | subprocess.Popen[str]
) -> None:
    """Wait until ``condition()`` is true, while the process goes on."""
    began = time.monotonic()
    while not condition():
        assert process.poll() is None
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.01)


def configured(
    folder: Path,
    executor: Mapping[str, object],
    trouble: Sequence[str] | None = None,
    *,
    header: str = "start=0, stop=None",
) -> Path:
    """Return the config of a run of 24 samples in shards of 4.

    Args:
        folder: for everything.
        executor: of the config.
        trouble: lines that are run before sample ``i`` is given out by a worker; ``once(name)`` is
            true the first time, ``here`` is the folder.
        header: parameters of the function that gives the samples.
    """
    changes: dict[str, object] = {
        **FAST,
        "executor": executor,
        "calibration.batch": 4,
        "calibration.checkpoint": 1,
    }
    if trouble is not None:
        changes["calibration.dataset"] = {"kind": "python", "function": "loader.py:batches"}
    config = workspace(folder, changes)
    lines = textwrap.indent("\n".join(trouble or ["pass"]), " " * 8)
    (folder / "loader.py").write_text(LOADER.format(header=header, trouble=lines))
    return config


LOADER = """\
import os
import time
from pathlib import Path

import numpy as np

here = Path(__file__).parent


def once(name):
    try:
        (here / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def batches({header}):
    with np.load(here / "calib.npz") as arrays:
        x = arrays["x"]
    span = locals()
    for i in range(span.get("start", 0), len(x) if span.get("stop") is None else span["stop"]):
        worker = span.get("stop") is not None and i > 0  # not counting, not the first look
        if worker:
            here_is_trouble(i)
        yield {{"x": x[i : i + 1]}}


def here_is_trouble(i):
    if i >= 0:
{trouble}
"""


def result(folder: Path) -> list[bytes]:
    """Return the bytes that must not depend on who collects."""
    return [(folder / "run" / name).read_bytes() for name in FILES]
