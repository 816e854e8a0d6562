"""How a collection is cut so that it stays within its memory.

A slice is as many samples as keep a lane's activations in the processor's caches.  Under a budget,
slices are made shorter first, then lanes fewer, then the tensors are spread over several passes:
each of these costs more time than the one before.

Expected peak: what the process holds with the model loaded, and for each lane a slice's inner
activations and tapped outputs, and its counts.  Shapes are those of the first sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.collect import memory
from quantlab.collect.accumulator import Accumulators
from quantlab.collect.kernel import BLOCK, TABLES
from quantlab.collect.work import Shapes
from quantlab.datasets.base import Array, Batch
from quantlab.engines.ort_session import run, session
from quantlab.errors import ConfigError, EngineError
from quantlab.graph import tap
from quantlab.graph.model import reload
from quantlab.histogram import BINS

CACHED = 16 << 20
"""Bytes of activations that a lane runs at once: about what a core's share of the caches holds."""

COUNTED = 3 * BINS * 8
"""Bytes of a tensor's counts: a lane's, those that are merged, and those of a checkpoint."""

LANE = (BINS * TABLES + BLOCK) * 4 + (1 << 20)
"""Bytes of a lane beside its tensors: the kernel's tables, a thread, its bindings."""

STEP = 16 << 20
"""What ``base`` is rounded up to, so that a rerun makes the same passes."""

SPARE = 32 << 20
"""Bytes for what is not told apart: the allocator's slack, what libraries load late."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the model and one sample take.

    Attributes:
        shapes: of the inputs and the tensors.
        together: whether several samples can be run at once.
        fed: bytes of a sample's inputs.
        tensors: bytes of each tensor for one sample.
        base: most bytes that the process held while the model was loaded; 0 if not measured.
        inner: bytes of inner activations that one inference of a sample takes; 0 likewise.
    """

    shapes: Shapes
    together: bool
    fed: int
    tensors: Mapping[str, int]
    base: int = 0
    inner: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to collect.

    Attributes:
        passes: tensors of each pass over the samples.
        slice: samples that a lane runs at once.
        lanes: slices that run at once.
        threads: of one inference.
        peak_bytes: expected peak of resident memory; 0 without a budget, where it is not measured.
    """

    passes: tuple[tuple[str, ...], ...]
    slice: int
    lanes: int
    threads: int
    peak_bytes: int


def probe(
    model: Path, tensors: Sequence[str], batch: Batch, *, together: bool, memory_too: bool
) -> Probe:
    """Run the model on as few samples as it takes and measure.

    Args:
        model: the prepared model's file.
        tensors: that are going to be counted.
        batch: one sample, or as many as the model's batch axis is fixed at.
        together: whether several samples may be run at once.
        memory_too: whether to measure ``base`` and ``inner``.

    Raises:
        EngineError: the model cannot be run.
    """
    watched, outputs = tap.watch(
        reload(model), [name for name in tensors if name not in batch.arrays], "Shape"
    )
    itemsizes = {str(v.name): _itemsize(v) for n in watched.graph for v in n.outputs} | {
        name: array.dtype.itemsize for name, array in batch.arrays.items()
    }
    if memory_too:
        warm = Accumulators(("",))
        warm.add(0, np.ones(1, np.float32), np.zeros(1, np.int64))  # loads code: takes memory
        memory.release()
        memory.forget_peak()
    with tap.beside(watched, model) as file:
        opened = session(file, threads=1, tapped=True)
    base, loaded = memory.peak(), memory.resident()

    def shapes(arrays: Mapping[str, Array]) -> dict[str, NDArray[np.int64]]:
        found = run(opened, tuple(outputs.values()), arrays) if outputs else {}
        made = {name: np.asarray(found[output], np.int64) for name, output in outputs.items()}
        return {name: np.array(array.shape, np.int64) for name, array in arrays.items()} | made

    one = more = shapes(batch.arrays)
    inner = max(memory.peak() - loaded, 0)
    if together:
        twice = {name: np.concatenate([array, array]) for name, array in batch.arrays.items()}
        try:
            more = shapes(twice)
        except EngineError:  # it takes one sample at a time, whatever its inputs say
            together = False
    steps = {name: (more[name] - one[name]) // batch.size for name in one}
    return Probe(
        shapes=Shapes(batch.size, _tuples(one), _tuples(steps)),
        together=together,
        fed=sum(array.nbytes for array in batch.arrays.values()) // batch.size,
        tensors={
            name: -(-prod(one[name].tolist()) * itemsizes[name] // batch.size) for name in tensors
        },
        base=base if memory_too else 0,
        inner=inner // batch.size if memory_too else 0,
    )


def _itemsize(value: ir.Value) -> int:
    """Return the bytes of an element; 4 where the type is not known, or not one of numbers."""
    known = value.dtype is not None and value.dtype != ir.DataType.STRING
    return ceil(value.dtype.itemsize) if known and value.dtype else 4


def _tuples(arrays: Mapping[str, NDArray[np.int64]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.tolist()) for name, array in arrays.items()}


def plan(
    found: Probe, *, batch: int, fixed: bool, cores: int, budget: int | None, waiting: int = 4
) -> Plan:
    """Return how to collect.

    Args:
        found: what a sample takes.
        batch: samples a batch; slices are no larger.
        fixed: whether the model takes batches of that size only.
        cores: that may be used.
        budget: bytes that the process may hold; None for no limit.
        waiting: batches of samples in memory at most.

    Raises:
        ConfigError: the budget does not hold the model and its largest tensor; says what would.
    """

    def peak(tapped: int, size: int, lanes: int) -> int:
        """Return the expected peak with ``tapped`` bytes of outputs a sample."""
        lane = size * (found.inner + tapped) + COUNTED * len(found.tensors) + LANE
        return -(-found.base // STEP) * STEP + SPARE + waiting * batch * found.fed + lanes * lane

    everything = tuple(found.tensors)
    total = sum(found.tensors.values())
    size = batch if fixed else max(1, min(batch, CACHED // max(total, 1)))
    size = size if found.together or fixed else 1
    lanes = cores
    if budget is not None:
        while not fixed and size > 1 and peak(total, size, lanes) > budget:
            size = (size + 1) // 2
        while lanes > 1 and peak(total, size, lanes) > budget:
            lanes -= 1
    passes: tuple[tuple[str, ...], ...] = (everything,)
    if budget is not None and peak(total, size, lanes) > budget:
        room = (budget - peak(0, size, lanes)) // size
        passes = _groups(found, room, least=peak(0, size, lanes), size=size)
    most = max(sum(found.tensors[name] for name in names) for names in passes)
    expected = 0 if budget is None else peak(most, size, lanes)
    return Plan(passes, size, lanes, cores // lanes, expected)


def _groups(found: Probe, room: int, *, least: int, size: int) -> tuple[tuple[str, ...], ...]:
    """Return the tensors in groups of at most ``room`` bytes a sample, in order."""
    largest = max(found.tensors, key=lambda name: found.tensors[name])
    if found.tensors[largest] > room:
        needed = least + found.tensors[largest] * size
        raise ConfigError(
            f"'calibration.max_memory' is too little: with the model loaded this process holds "
            f"{found.base >> 20} MiB, and the largest tensor, {largest!r}, takes "
            f"{found.tensors[largest] * size / 2**20:.1f} MiB; the least that works is "
            f"{-(-needed >> 20)} MiB",
            "max_memory",
        )
    groups: list[list[str]] = [[]]
    used = 0
    for name, bytes_ in found.tensors.items():
        if used + bytes_ > room:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += bytes_
    return tuple(tuple(names) for names in groups)
