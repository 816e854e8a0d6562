"""CUDA as far as quantlab's runner uses it through PyCUDA, in plain Python.

What is queued on a stream does not happen until somebody waits, and then in any order that streams
and events allow, drawn at random: a missing wait shows as a wrong result in some order.  Copies
read and write host memory when they happen, not when they are queued.  Memory that was given back
is an error to touch, and what is not given back can be counted.

Time is simulated too.  The host's clock advances by HOST a call; work on a stream starts when it
was queued, the work before it is done and the events it waits for have come, and takes what
``costs`` says.  So every time that events tell is known.
"""

import ctypes
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantlab.cuda import graphs
from quantlab.cuda.device import Device

HOST = 1e-6
"""Seconds that a call takes on the host."""


@dataclass
class Costs:
    """Seconds that the GPU takes for a copy each way."""

    h2d: float = 0.0
    d2h: float = 0.0


class Error(Exception):
    """pycuda.driver.Error."""


class OutOfMemory(Error):
    """pycuda.driver.MemoryError."""


@dataclass
class Operation:
    """Something queued: what it does, how long it takes, and what must have come before."""

    do: Callable[[], None]
    seconds: float
    queued: float
    after: "Moment | None" = None
    marks: "Moment | None" = None


@dataclass
class Moment:
    """One record of an event; ``at`` is None until it came."""

    at: float | None = None


class Cuda:
    """The GPU; ``module`` is what stands for pycuda.driver, ``library`` for libcuda."""

    def __init__(self, *, seed: int = 0, memory: int = 1 << 30) -> None:
        self.now = 0.0
        self.costs = Costs()
        self.limit = memory
        self.device: dict[int, NDArray[np.uint8]] = {}
        self.pinned: dict[int, int] = {}
        self.streams: list[Stream] = []
        self.depth = 0
        self.capturing: Stream | None = None
        self.capture_fails = 0
        self.captured: list[Operation] = []
        self.graphs: dict[int, list[Operation]] = {}
        self.launched = 0
        self.copied: list[bytes] = []
        self._random = random.Random(seed)  # noqa: S311  # an order, not a secret
        self._addresses = count(0x1000_0000, 0x100_0000)
        self._handles = count(1)
        self.module = self._module()
        self.library = Library(self)

    def clock(self) -> float:
        return self.now

    def used(self) -> int:
        """Bytes of device and page-locked memory that were not given back."""
        return sum(array.size for array in self.device.values()) + sum(self.pinned.values())

    def array(self, address: int, size: int) -> NDArray[np.uint8]:
        """Return device memory; it must have been allocated."""
        for start, memory in self.device.items():
            if start <= address and address + size <= start + memory.size:
                return memory[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def call(self) -> None:
        """Count a call of the host's; a context must be current."""
        assert self.depth > 0, "no context is current"
        self.now += HOST

    def queue(self, stream: "Stream", do: Callable[[], None], seconds: float = 0.0) -> None:
        self.push(stream, Operation(do, seconds, self.now))

    def push(self, stream: "Stream", operation: Operation) -> None:
        if self.capturing is stream:
            assert operation.marks is None, "an event is recorded during capture"
            self.captured.append(operation)
        else:
            stream.waiting.append(operation)

    def settle(self, done: Callable[[], bool]) -> None:
        """Do queued work in a random order that is allowed until ``done``."""
        while not done():
            ready = [s for s in self.streams if s.waiting and s.ready()]
            assert ready, "waits for what never comes"
            self._random.choice(ready).step()

    def finish(self) -> None:
        self.settle(lambda: not any(stream.waiting for stream in self.streams))
        self.now = max([self.now, *(stream.time for stream in self.streams)])

    def next_handle(self) -> int:
        return next(self._handles)

    def allocate(self, size: int) -> int:
        if size > self.limit - sum(array.size for array in self.device.values()):
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        address = next(self._addresses)
        self.device[address] = np.full(size, 0xA5, np.uint8)
        return address

    def _module(self) -> ModuleType:
        cuda = self
        module = ModuleType("pycuda.driver")
        contents: dict[str, Any] = {
            "Error": Error,
            "MemoryError": OutOfMemory,
            "Device": type("Device", (Gpu,), {"cuda": cuda}),
            "Stream": type("Stream", (Stream,), {"cuda": cuda}),
            "Event": type("Event", (Event,), {"cuda": cuda}),
            "Context": type("Context", (Context,), {"cuda": cuda}),
            "event_flags": type("event_flags", (), {"BLOCKING_SYNC": 1, "DISABLE_TIMING": 2}),
            "init": lambda: None,
            "mem_alloc": lambda size: Allocation(cuda, size),
            "pagelocked_empty": lambda size, dtype: pinned(cuda, size, dtype),
            "memcpy_htod_async": lambda to, source, stream: copy_in(cuda, to, source, stream),
            "memcpy_dtoh_async": lambda to, source, stream: copy_out(cuda, to, source, stream),
        }
        vars(module).update(contents)
        return module


class Gpu:
    """pycuda.driver.Device."""

    cuda: Cuda
    multiprocessor_count = 132

    def __init__(self, index: int) -> None:
        self.index = index

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "Simulated GPU"

    def compute_capability(self) -> tuple[int, int]:
        return (9, 0)

    def pci_bus_id(self) -> str:
        return ""

    def retain_primary_context(self) -> "Context":
        return Context(self.cuda)


class Context:
    """pycuda.driver.Context."""

    cuda: Cuda

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def push(self) -> None:
        self._cuda.depth += 1

    def pop(self) -> None:
        self._cuda.depth -= 1

    @classmethod
    def synchronize(cls) -> None:
        cls.cuda.call()
        cls.cuda.finish()


class Stream:
    """pycuda.driver.Stream."""

    cuda: Cuda

    def __init__(self) -> None:
        self.cuda.call()
        self.handle = self.cuda.next_handle()
        self.waiting: deque[Operation] = deque()
        self.time = 0.0
        self.cuda.streams.append(self)

    def ready(self) -> bool:
        after = self.waiting[0].after
        return after is None or after.at is not None

    def step(self) -> None:
        operation = self.waiting.popleft()
        start = max(self.time, operation.queued)
        if operation.after is not None and operation.after.at is not None:
            start = max(start, operation.after.at)
        operation.do()
        self.time = start + operation.seconds
        if operation.marks is not None:
            operation.marks.at = self.time

    def wait_for_event(self, event: "Event") -> None:
        self.cuda.call()
        operation = Operation(lambda: None, 0.0, self.cuda.now, after=event.moment)
        self.cuda.push(self, operation)

    def synchronize(self) -> None:
        self.cuda.call()
        self.cuda.settle(lambda: not self.waiting)
        self.cuda.now = max(self.cuda.now, self.time)


class Event:
    """pycuda.driver.Event."""

    cuda: Cuda

    def __init__(self, flags: int = 0) -> None:
        self.cuda.call()
        self.timed = not flags & 2
        self.moment = Moment(0.0)

    def record(self, stream: Stream) -> "Event":
        self.cuda.call()
        self.moment = Moment()
        operation = Operation(lambda: None, 0.0, self.cuda.now, marks=self.moment)
        self.cuda.push(stream, operation)
        return self

    def synchronize(self) -> "Event":
        self.cuda.call()
        moment = self.moment
        self.cuda.settle(lambda: moment.at is not None)
        assert moment.at is not None
        self.cuda.now = max(self.cuda.now, moment.at)
        return self

    def time_till(self, other: "Event") -> float:
        assert self.timed
        assert other.timed
        assert self.moment.at is not None
        assert other.moment.at is not None, "the event has not come yet"
        return 1e3 * (other.moment.at - self.moment.at)


class Allocation:
    """pycuda.driver.DeviceAllocation."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        cuda.call()
        assert cuda.capturing is None, "memory is allocated during capture"
        self._cuda, self._address = cuda, cuda.allocate(size)

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._cuda.call()
        self._cuda.finish()  # as cuMemFree
        del self._cuda.device[self._address]


class Pinned:
    """pycuda.driver.PagelockedHostAllocation: the base of an array in page-locked memory."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda, self._key = cuda, cuda.next_handle()
        self._buffer = np.full(size, 0x5A, np.uint8)
        self.__array_interface__ = self._buffer.__array_interface__
        cuda.pinned[self._key] = size

    def free(self) -> None:
        self._cuda.call()
        self._buffer[:] = 0xDD
        del self._cuda.pinned[self._key]


def pinned(cuda: Cuda, size: int, dtype: type[np.uint8]) -> NDArray[np.uint8]:
    cuda.call()
    assert dtype is np.uint8
    return np.asarray(Pinned(cuda, size))


def copy_in(cuda: Cuda, to: int, source: NDArray[np.uint8], stream: Stream) -> None:
    cuda.call()
    assert source.size
    target = cuda.array(to, source.size)

    def copy() -> None:
        target[:] = source

    cuda.queue(stream, copy, cuda.costs.h2d)


def copy_out(cuda: Cuda, to: NDArray[np.uint8], source: int, stream: Stream) -> None:
    cuda.call()
    assert to.size
    origin = cuda.array(source, to.size)

    def copy() -> None:
        to[:] = origin
        cuda.copied.append(to.tobytes())

    cuda.queue(stream, copy, cuda.costs.d2h)


class Library:
    """libcuda's functions for CUDA graphs, called as ctypes calls them."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def _stream(self, handle: ctypes.c_void_p) -> Stream:
        return next(s for s in self._cuda.streams if s.handle == handle.value)

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: int) -> int:  # noqa: N802
        self._cuda.call()
        assert mode == 1
        self._cuda.capturing, self._cuda.captured = self._stream(stream), []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:  # noqa: N802
        self._cuda.call()
        assert self._cuda.capturing is self._stream(stream)
        self._cuda.capturing = None
        if self._cuda.capture_fails:
            return self._cuda.capture_fails
        graph._obj.value = self._cuda.next_handle()
        self._cuda.graphs[graph._obj.value] = self._cuda.captured
        return 0

    def cuGraphInstantiateWithFlags(  # noqa: N802
        self, executable: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong
    ) -> int:
        self._cuda.call()
        assert flags.value == 0
        executable._obj.value = self._cuda.next_handle()
        self._cuda.graphs[executable._obj.value] = self._cuda.graphs[graph.value or 0]
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:  # noqa: N802
        self._cuda.call()
        del self._cuda.graphs[graph.value or 0]
        return 0

    cuGraphExecDestroy = cuGraphDestroy  # noqa: N815

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:  # noqa: N802
        self._cuda.call()
        self._cuda.launched += 1
        for operation in self._cuda.graphs[executable.value or 0]:
            self._cuda.queue(self._stream(stream), operation.do, operation.seconds)
        return 0

    def cuGetErrorString(self, status: int, text: Any) -> int:  # noqa: N802
        text._obj.value = {900: b"operation not permitted when stream is capturing"}[status]
        return 0


def install(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> Device:
    """Let PyCUDA be this GPU, and return it as quantlab sees it."""
    package = ModuleType("pycuda")
    vars(package)["driver"] = cuda.module
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", cuda.module)
    monkeypatch.setattr(graphs, "library", lambda: cuda.library)
    return Device()
