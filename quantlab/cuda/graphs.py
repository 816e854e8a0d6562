"""CUDA graphs: an inference is recorded once and then launched as one piece.

PyCUDA does not know them, so libcuda is called directly.  What is recorded keeps the addresses and
shapes that it was recorded with.  Recording is local to the thread, as trtexec does it: other
threads may allocate meanwhile, this one may not.
Source of the interface: NVIDIA's CUDA driver API, "Graph Management" and "Stream Management".
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from quantlab.errors import EngineError, EngineUnavailable

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL."""


class Graph:
    """A recorded inference; ``destroy`` it.  All use belongs inside ``Device.current``."""

    def __init__(self, libcuda: Any, executable: ctypes.c_void_p) -> None:
        self._libcuda = libcuda
        self._executable: ctypes.c_void_p | None = executable

    def launch(self, stream: int) -> None:
        """Queue it on a stream, given by its handle.

        Raises:
            EngineError: CUDA refused.
        """
        done = self._libcuda.cuGraphLaunch(self._executable, ctypes.c_void_p(stream))
        _check(self._libcuda, done, "cuGraphLaunch")

    def destroy(self) -> None:
        """Give it back; nothing may be running it.  A second call does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._libcuda.cuGraphExecDestroy(executable)


def capture(enqueue: Callable[[], object], stream: int) -> Graph:
    """Record what ``enqueue`` queues on ``stream``; nothing of it runs.

    Everything must have been queued once before: what is done only the first time, such as
    allocating, cannot be recorded.

    Raises:
        EngineError: CUDA refused, or ``enqueue`` did; the stream then works as before.
    """
    libcuda, handle = library(), ctypes.c_void_p(stream)
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    began = libcuda.cuStreamBeginCapture_v2(handle, THREAD_LOCAL)
    _check(libcuda, began, "cuStreamBeginCapture")
    try:
        try:
            enqueue()
        finally:  # the stream must leave this mode, whatever happened
            ended = libcuda.cuStreamEndCapture(handle, ctypes.byref(graph))
        _check(libcuda, ended, "cuStreamEndCapture")
        _check(libcuda, _instantiate(libcuda, executable, graph), "cuGraphInstantiate")
    finally:
        if graph.value:
            libcuda.cuGraphDestroy(graph)
    return Graph(libcuda, executable)


@cache
def library() -> Any:
    """Return libcuda, the driver's library.

    Raises:
        EngineUnavailable: there is none.
    """
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineUnavailable(
            f"CUDA cannot be used: the NVIDIA driver is missing ({error}); install the driver"
        ) from error


def _instantiate(libcuda: Any, executable: ctypes.c_void_p, graph: ctypes.c_void_p) -> int:
    into = ctypes.byref(executable)
    if hasattr(libcuda, "cuGraphInstantiateWithFlags"):
        return int(libcuda.cuGraphInstantiateWithFlags(into, graph, ctypes.c_ulonglong(0)))
    return int(libcuda.cuGraphInstantiate_v2(into, graph, None, None, ctypes.c_size_t(0)))


def _check(libcuda: Any, status: int, call: str) -> None:
    if status:
        text = ctypes.c_char_p()
        libcuda.cuGetErrorString(status, ctypes.byref(text))
        raise EngineError(f"{call}: {(text.value or b'unknown error').decode()} ({status})")
