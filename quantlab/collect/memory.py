"""Resident memory of this process, and its peak since a moment of one's choosing."""

import contextlib
import gc
import resource
import sys
from pathlib import Path

import psutil

KIB = 1024

STATUS = Path("/proc/self/status")

RESET_PEAK = "5"
"""What /proc/self/clear_refs takes to forget the peak; man 5 proc."""


def resident() -> int:
    """Return the bytes that this process holds in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Return the most bytes that this process held since ``forget_peak``, or ever."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    except OSError:
        pass
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * KIB


def forget_peak() -> None:
    """Let ``peak`` count from now on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)


def release() -> None:
    """Give memory that is free, but still held by the allocator, back to the system (glibc)."""
    import ctypes

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
