"""How fast the GPU's counting kernels read, beside how fast the GPU can read at all.

Both are timed by events on the GPU, one launch after the other over the same 1 GiB, which is far
more than its caches hold.  The rate is that of the bytes read.
"""

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure
from quantlab.cuda.counter import Counter, View, described
from quantlab.cuda.device import Device
from quantlab.cuda.layout import BLOCKS, TABLE, THREADS
from quantlab.cuda.nvrtc import compile_source
from quantlab.histogram import from_array

GIB = 1 << 30
DRAWN = 1 << 24
"""Values that are drawn; the GiB repeats them."""

LAUNCHES = 30

LIMITS = {"float32": 0.9, "float16": 0.8}
"""Least share of the read bandwidth."""

READ = """
extern "C" __global__ void __launch_bounds__(THREADS) read_all(
    const uint4* data, unsigned long long vectors, unsigned* found
) {
    const unsigned long long step = (unsigned long long)gridDim.x * THREADS * UNROLL;
    unsigned long long i = (unsigned long long)blockIdx.x * THREADS * UNROLL + threadIdx.x;
    unsigned all = 0;
    for (; i + (UNROLL - 1) * THREADS < vectors; i += step) {
        uint4 loaded[UNROLL];
#pragma unroll
        for (int j = 0; j < UNROLL; ++j) loaded[j] = __ldcs(data + i + j * THREADS);
#pragma unroll
        for (int j = 0; j < UNROLL; ++j)
            all ^= loaded[j].x ^ loaded[j].y ^ loaded[j].z ^ loaded[j].w;
    }
    if (all == 0x5eed5eedu) *found = all;  // so that the loads are not left out
}
"""
"""A reduction that does nothing but read."""

READERS = tuple(itertools.product((256, 512, 1024), (2, 4, 8), (2, 4, 8, 16)))
"""Threads, loads in flight, and blocks a multiprocessor that reading is tried with."""


def figures(device: Device) -> list[Figure]:
    """Return the read bandwidth, and each kind of data's rate and share of it."""
    with device.current():
        memory = device.cuda.mem_alloc(GIB)
        found = [_bandwidth(device, memory)]
        for dtype in ("float32", "float16", "bfloat16"):
            for name, values in drawn(dtype).items():
                data = np.tile(values, GIB // values.nbytes)
                device.cuda.memcpy_htod(memory, data)
                found += _rates(device, memory, data, name, found[0].value)
    return found


def drawn(dtype: str) -> dict[str, NDArray[Any]]:
    """Return (DRAWN,) arrays of a kind each."""
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    normal = np.random.default_rng(0).standard_normal(DRAWN, np.float32)
    return {
        "normal": normal.astype(kind),
        "normal behind ReLU": np.maximum(normal, 0).astype(kind),
        "constant": np.full(DRAWN, 1.7, kind),
    }


def _bandwidth(device: Device, memory: Any) -> Figure:
    device.cuda.memcpy_htod(memory, np.random.default_rng(1).bytes(GIB))
    best: list[float] = [0.0]
    for threads, unroll, blocks in READERS:
        options = (f"-DTHREADS={threads}", f"-DUNROLL={unroll}")
        code = compile_source(READ, device.architecture, options)
        read = device.cuda.module_from_buffer(code).get_function("read_all")
        read.prepare("PQP")
        grid, block = (blocks * device.multiprocessors, 1), (threads, 1, 1)

        def launch(
            read: Any = read, grid: tuple[int, int] = grid, block: tuple[int, int, int] = block
        ) -> None:
            read.prepared_async_call(grid, block, device.stream, int(memory), GIB // 16, 0)

        rates = timed(device, launch)
        best = max(best, rates, key=statistics.median)
    how = f"best of {len(READERS)} plain reductions; median of {LAUNCHES} launches, 1 GiB"
    return figure("read bandwidth", best, how)


def _rates(device: Device, memory: Any, data: NDArray[Any], name: str, most: float) -> list[Figure]:
    """Count once, check the result, then time count alone, and a whole batch."""
    counter = Counter(device, ["t"])
    view, samples = View(int(memory), (1, data.size), data.dtype.name), np.zeros(1, np.int64)
    counter.add([view], samples)
    expected = from_array("t", data[None, :DRAWN])
    found = counter.take()["t"]
    if found.exponent != expected.exponent or not np.array_equal(
        found.counts, expected.counts * (data.size // DRAWN)
    ):
        raise RuntimeError(f"counts of {data.dtype.name}, {name} are wrong")
    counter.add([view], samples)
    table, tiles = described([view], 1)
    cuda = device.cuda
    tensors, owners = cuda.mem_alloc(table.nbytes), cuda.mem_alloc(8)
    states, counts = counter.memory
    cuda.memcpy_htod(tensors, table)
    cuda.memcpy_htod(owners, samples.view(np.uint64))
    count = device.function("count", "PIQPPP")
    grid, block = (BLOCKS * device.multiprocessors, 1), (THREADS, 1, 1)
    work = (int(tensors), 1, tiles, int(owners), states, counts)

    def alone() -> None:
        count.prepared_async_call(grid, block, device.stream, *work, shared_size=TABLE)

    kernel = timed(device, alone)
    batch = timed(device, lambda: counter.add([view], samples))
    what = f"{data.dtype.name}, {name}"
    how = f"median of {LAUNCHES} launches over 1 GiB; the counts were checked before"
    shares = [rate / most for rate in kernel]
    least = LIMITS.get(data.dtype.name) if name != "constant" else None
    return [
        figure(f"counting {what}", kernel, how),
        figure(f"counting {what}: share of the read bandwidth", shares, how, least),
        figure(f"a batch of {what}: count, settle and rest", batch, how),
    ]


def timed(device: Device, work: Callable[[], object]) -> list[float]:
    """Return each launch's rate in TB/s over 1 GiB, after three that are not timed."""
    for _ in range(3):
        work()
    events = [device.cuda.Event() for _ in range(LAUNCHES + 1)]
    events[0].record(device.stream)
    for event in events[1:]:
        work()
        event.record(device.stream)
    events[-1].synchronize()
    pairs = itertools.pairwise(events)
    return [GIB / first.time_till(second) / 1e9 for first, second in pairs]


def figure(name: str, values: list[float], how: str, at_least: float | None = None) -> Figure:
    """Return the median, with the least and the largest as its spread."""
    unit = "TB/s" if "share" not in name else "x"
    median = statistics.median(values)
    return Figure(name, median, unit, min(values), max(values), how, at_least=at_least)
