"""What ``test_callbacks.py`` runs inside a process with one TensorRT: quantlab's own subclasses.

``python inside.py RELEASE``.  A case calls what TensorRT would call, on objects that
quantlab makes for it, and asserts what comes of it.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from threading import Thread
from typing import Any

import numpy as np
import pytest

from quantlab import cache
from quantlab.engines.base import Array
from quantlab.engines.trt import execution, implicit, log, monitor, network, outputs, runner
from quantlab.engines.trt.library import Library, load
from quantlab.errors import CacheError, CalibrationError, EngineUnavailable
from tests.trt_bindings.releases import RELEASES, Release
from tests.trt_bindings.virtual import PLACES, Allocation, Calibration


@dataclass(frozen=True, slots=True)
class Here:
    """The TensorRT of this process: as a program can use it, and as quantlab loaded it."""

    release: Release
    trt: Any
    library: Library


def logger(here: Here) -> None:
    """Messages come through TensorRT's ILogger, from any thread."""
    trt, told = here.trt, log.Log()
    made = log.make(here.library.module, told)
    severities = trt.ILogger.Severity.__members__
    assert set(severities) == set(log.LEVELS)

    def say(severity: str, text: str) -> None:
        trt.ILogger.log(made, severities[severity], text)

    say("ERROR", "no memory")
    say("INFO", "Starting Calibration.")
    missing = "Missing scale and zero-point for tensor conv1, expect fall back to non-int8"
    other = Thread(target=say, args=("WARNING", missing))
    other.start()
    other.join()
    assert told.errors == ["no memory"]
    assert list(told.missing) == ["conv1"]
    assert told.calibration == ["Starting Calibration."]


def no_libraries(here: Here) -> None:
    """What the bindings raise where TensorRT does not start becomes our error."""
    told = log.Log()
    made = log.make(here.library.module, told)
    with pytest.raises(EngineUnavailable, match="does not start"):
        network.start(here.library, made, told)
    with pytest.raises(EngineUnavailable, match="does not start"):
        runner.started(here.library, here.trt, made, told)


def plugins(here: Here) -> None:
    """TensorRT takes our logger where its signature says capsule; the stub finds no plugins."""
    made = log.make(here.library.module, log.Log())
    assert here.library.module.init_libnvinfer_plugins(made, "") is (not here.release.wheel)


def progress(here: Here) -> None:
    """Phases come through TensorRT's IProgressMonitor, and a cancelled build hears False."""
    shown: list[int] = []
    steps = monitor.Steps(shown.append)
    made = monitor.make(here.library.module, steps)
    base = here.trt.IProgressMonitor
    base.phase_start(made, "Building engine", None, 2)
    base.phase_start(made, "Optimizing graph", "Building engine", 4)
    assert base.step_complete(made, "Optimizing graph", 1) is True
    base.phase_finish(made, "Optimizing graph")
    assert base.step_complete(made, "Building engine", 0) is True
    steps.cancelled.set()
    assert base.step_complete(made, "Building engine", 1) is False
    base.phase_finish(made, "Building engine")
    assert shown == sorted(shown)
    assert shown[-1] == 100


ALGORITHMS: dict[cache.Algorithm, str] = {
    implicit.ENTROPY: "ENTROPY_CALIBRATION_2",
    implicit.MINMAX: "MINMAX_CALIBRATION",
}
"""TensorRT's name of the algorithm that a calibrator says it is."""


def asking(
    here: Here, algorithm: cache.Algorithm, source: implicit.Served | implicit.Fed
) -> Calibration:
    """Return what asks a calibrator of quantlab's as TensorRT does."""
    made = implicit.calibrator(here.library.module, algorithm, source)
    return Calibration(made, PLACES[here.release.generation].get_batch_size)


def implicit_cache(here: Here) -> None:
    """A calibrator gives TensorRT our cache to the byte, and a request for a batch is an error."""
    scales = {"image": 0.25, "conv1": 1.5}
    for algorithm, kind in ALGORITHMS.items():
        stored = cache.Cache(cache.Header("8.4.3", algorithm), scales)
        source = implicit.Served(implicit.served(stored, here.library.version))
        asked = asking(here, algorithm, source)
        assert asked.algorithm() == int(here.trt.CalibrationAlgoType.__members__[kind])
        assert asked.batch_size() == 1
        data = asked.read()
        assert data is not None
        header = cache.header_for(here.library.version, algorithm)
        assert cache.parse(data, "") == cache.Cache(header, scales)
        asked.write(data)
        assert not source.asked
        assert asked.batch(["image"]) is None
        assert source.asked
        with pytest.raises(CacheError, match="refused the calibration cache"):
            source.check(here.library, log.Log())


class HostMemory:
    """Where batches go when there is no GPU: this process's own memory."""

    def __init__(self) -> None:
        self.held: dict[str, Array] = {}

    def put(self, name: str, values: Array) -> int:
        """Keep a copy and return its address."""
        self.held[name] = values.copy()
        return int(self.held[name].ctypes.data)


def implicit_batches(here: Here) -> None:
    """TensorRT gets an address for each input, in its order, and then the end."""
    batches: list[dict[str, Array]] = [
        {"a": np.full((2, 3), i, np.float64), "b": np.full(2, -i, np.int64)} for i in range(3)
    ]
    short: dict[str, Array] = {"a": np.zeros((1, 3)), "b": np.zeros(1, np.int64)}
    inputs = {"a": ((2, 3), "HALF"), "b": ((2,), "INT32")}
    for algorithm in ALGORITHMS:
        source = implicit.Fed(lambda: iter([*batches, short]), inputs, HostMemory())
        asked = asking(here, algorithm, source)
        assert asked.read() is None
        for batch in batches:
            addresses = asked.batch(["b", "a"])
            assert addresses is not None
            b = np.frombuffer(ctypes.string_at(addresses[0], 8), np.int32)
            a = np.frombuffer(ctypes.string_at(addresses[1], 24), np.float32)
            assert np.array_equal(b, batch["b"])
            assert np.array_equal(a, batch["a"].ravel())
        assert asked.batch(["b", "a"]) is None
        asked.write(b"a cache")
        assert source.cache == b"a cache"
        assert "on 3 batches" in source.check(here.library, log.Log())[0]


def implicit_failure(here: Here) -> None:
    """What our code raises while TensorRT asks is kept, and raised after the build."""

    def broken() -> Iterator[dict[str, Array]]:
        yield {"a": np.zeros(2, np.float32)}
        raise CalibrationError("sample 7 cannot be read")

    source = implicit.Fed(broken, {"a": ((2,), "FLOAT")}, HostMemory())
    asked = asking(here, implicit.ENTROPY, source)
    assert asked.batch(["a"]) is not None
    assert asked.batch(["a"]) is None
    with pytest.raises(CalibrationError, match="sample 7"):
        source.check(here.library, log.Log())


class HostAllocation:
    """A piece of this process's memory, with what PyCUDA's pieces of a GPU's memory have."""

    def __init__(self, size: int) -> None:
        if size > LIMIT:
            raise MemoryError(f"{size} bytes")
        self._bytes = ctypes.create_string_buffer(size)
        self.freed = False

    def __int__(self) -> int:
        return ctypes.addressof(self._bytes)

    def free(self) -> None:
        """Note that it was given back."""
        self.freed = True


class HostDevice:
    """Stands in for a Device: ``cuda.mem_alloc`` of host memory."""

    def __init__(self) -> None:
        self.made: list[HostAllocation] = []
        self.cuda = self

    def mem_alloc(self, size: int) -> HostAllocation:
        """Return a piece."""
        self.made.append(HostAllocation(size))
        return self.made[-1]


LIMIT = 1 << 20
"""Bytes that a HostDevice has."""


def output_allocator(here: Here) -> None:
    """TensorRT is given memory for what it asks for, 0 where there is none, and tells the shape."""
    device: Any = HostDevice()
    source = outputs.Outputs(device)
    made = outputs.make(here.library.module, source)  # type: ignore[arg-type]  # api_run's Module
    asked = Allocation(made, PLACES[here.release.generation])
    address = asked.reallocate("boxes", 0, 400, stream=5)
    assert address == int(device.made[0])
    asked.shape("boxes", (25, 4))
    assert (source.found["boxes"].address, source.found["boxes"].shape) == (address, (25, 4))
    assert asked.reallocate("boxes", address, 40, stream=5) == address
    asked.shape("boxes", (0, 4))
    assert source.found["boxes"].shape == (0, 4)
    assert asked.reallocate("boxes", address, 4000, stream=5) == int(device.made[1])
    assert [piece.freed for piece in device.made] == [True, False]
    assert asked.reallocate("scores", 0, LIMIT + 1, stream=5) == 0
    assert isinstance(source.kept.error, MemoryError)


def profiler(here: Here) -> None:
    """Times of layers come through TensorRT's IProfiler and add up."""
    times: dict[str, float] = {}
    made = execution._profiler(here.library.module, times)  # type: ignore[arg-type]  # as above
    for ms in (1.5, 2.0):
        here.trt.IProfiler.report_layer_time(made, "conv1", ms)
    assert times == {"conv1": 3.5}


CASES: dict[str, tuple[Callable[[Here], None], ...]] = {
    "8 10 11 rtx": (logger, plugins, output_allocator, profiler),
    "10 11 rtx": (progress,),
    "8 10": (implicit_cache, implicit_batches, implicit_failure),
    "8 10 11": (no_libraries,),
}
"""By the generations that have what a case needs."""

if __name__ == "__main__":
    chosen = next(release for release in RELEASES if release.name == sys.argv[1])
    loaded = load("tensorrt" if chosen.wheel else "tensorrt-rtx")
    here = Here(chosen, import_module(chosen.module), loaded)
    for names, cases in CASES.items():
        for case in cases if chosen.generation in names.split() else ():
            print(case.__name__, flush=True)  # noqa: T201  # the last one is what failed
            case(here)
