"""A GPU's clock and power while it is measured, read from NVML by a thread.

Clock is that of the multiprocessors in MHz; power is the board's in watts, which NVML averages over
some milliseconds to a second, depending on the GPU.  A GPU is known by its PCI address, because
NVML numbers GPUs otherwise than CUDA.
Source: NVIDIA Management Library, nvmlDeviceGetClockInfo and nvmlDeviceGetPowerUsage.
Limits: what the driver does not tell stays untold: there is no estimate in its place.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from threading import Event, Thread
from typing import Any

EVERY = 0.05
"""Seconds from one reading to the next: seldom enough not to disturb what is measured."""


@dataclass(slots=True)
class Watch:
    """Readings so far; mutable on purpose: the thread adds to it.

    Attributes:
        clocks: in MHz.
        watts: of the board.
    """

    clocks: list[int] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)

    @property
    def clocks_mhz(self) -> tuple[int, int] | None:
        """Lowest and highest; None if the driver told none."""
        return (min(self.clocks), max(self.clocks)) if self.clocks else None

    @property
    def power_watts(self) -> tuple[float, float] | None:
        """Lowest and highest; None if the driver told none."""
        return (min(self.watts), max(self.watts)) if self.watts else None


Read = Callable[[], tuple[int | None, float | None]]
"""Returns clock in MHz and power in watts, None for what is not told."""


@contextmanager
def reading(bus: str) -> Iterator[Read | None]:
    """Open NVML for the GPU at a PCI address; give what reads it, or None if there is none.

    None: no address is known, nvidia-ml-py or the driver is missing, or NVML knows no such GPU.
    """
    nvml = _library() if bus else None
    if nvml is None:
        yield None
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield None
        return
    try:
        handle = _told(nvml, lambda: nvml.nvmlDeviceGetHandleByPciBusId(bus.encode()))
        yield None if handle is None else lambda: _readings(nvml, handle)
    finally:
        nvml.nvmlShutdown()


@contextmanager
def watching(read: Read | None, watch: Watch) -> Iterator[None]:
    """Add a reading to ``watch`` every EVERY seconds while the block runs, the first one late.

    A GPU that was idle raises its clock only when work comes, so nothing is read at once.
    """
    if read is None:
        yield
        return
    stop = Event()
    thread = Thread(target=_watch, args=(read, watch, stop), name="clocks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(read: Read, watch: Watch, stop: Event) -> None:
    while not stop.wait(EVERY):
        clock, power = read()
        watch.clocks += _some(clock)
        watch.watts += _some(power)


def _some(value: Any) -> Sequence[Any]:
    return () if value is None else (value,)


def _readings(nvml: Any, handle: Any) -> tuple[int | None, float | None]:
    clock = _told(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
    power = _told(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return clock, None if power is None else power / 1e3


def _told(nvml: Any, ask: Callable[[], Any]) -> Any:
    """Return what NVML answers, None where this GPU or driver does not support the question."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _library() -> Any:
    try:
        return import_module("pynvml")
    except ImportError:
        return None
