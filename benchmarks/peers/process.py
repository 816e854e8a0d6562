"""A process under limits of memory and time, and what it used.

The peak is the largest VmHWM of /proc that was seen: ``ru_maxrss`` of a child would include the
memory that the parent had when it started it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.cell import End

INTERVAL = 0.05
"""Seconds between two looks at the process."""

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """When a process is killed: resident bytes, wall seconds."""

    memory: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process used: how it ended, wall and CPU seconds, peak of resident bytes."""

    end: End
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(command: Sequence[str | Path], log: Path, *, cwd: Path, limits: Limits) -> Usage:
    """Run the command, output into ``log``, in a process group that is killed at a limit."""
    started, peak = time.perf_counter(), 0
    end: End = "finished"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while True:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                resident, peak = _memory(process.pid, peak)
                late = time.perf_counter() - started > limits.seconds
                if resident > limits.memory or late:
                    end = "time" if late else "memory"
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(INTERVAL)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if end == "finished" and process.returncode:
        end = "memory" if process.returncode == -signal.SIGKILL else "failed"
    seconds = time.perf_counter() - started
    return Usage(end, seconds, used.ru_utime + used.ru_stime, peak)


def _memory(pid: int, peak: int) -> tuple[int, int]:
    """Return the resident bytes now, and the largest so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, peak
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    resident = int(sizes.get("VmRSS", 0)) * KIB
    return resident, max(peak, int(sizes.get("VmHWM", 0)) * KIB)
