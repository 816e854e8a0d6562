"""A lane: one thread that runs slices of batches through the model and counts what it sees.

Lanes share a session and nothing else: each has its own buffers and counts, so that none waits for
another.  Several lanes of one thread each use the cores better than one inference on all of them:
while one lane counts, another infers, and a slice's activations are counted while the caches hold
them.

The outputs are bound to one buffer of the lane's, as large as the largest slice needs, where their
shapes are the expected ones; other slices run with buffers of ONNX Runtime's own.
"""

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from quantlab.collect.accumulator import Accumulators
from quantlab.collect.work import Shapes
from quantlab.engines.base import Array
from quantlab.engines.ort_session import DTYPES, translated
from quantlab.errors import EngineError
from quantlab.histogram import Histogram

ALIGNED = 16
"""Floats that a tensor's place in the buffer is rounded up to: a cache line."""

BFLOAT16 = "tensor(bfloat16)"
"""The one floating-point type that ONNX Runtime does not give NumPy's name for."""


Ranges = Callable[[], NDArray[np.float64]]
"""Waits for a slice and returns its tensors' extremes."""


class Lane(Protocol):
    """Runs a model and counts its activations; used by one thread at a time."""

    @property
    def seconds(self) -> float:
        """Time spent in the model since ``take``."""
        ...

    def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
        """Run one slice of a batch and count, or queue that where the device works by itself.

        Args:
            arrays: by input name.
            samples: (slice,) each sample's index.

        Returns:
            A function that waits for it and returns (tensors, 2) float64: each tensor's finite
            minimum and maximum in this slice, inf and -inf where it has none.

        Raises:
            EngineError: the model cannot be run on it.
        """
        ...

    def take(self) -> dict[str, Histogram]:
        """Return what was counted since the last call, by tensor, and start anew."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """Outputs bound to a lane's buffers, for slices of one size.

    Attributes:
        binding: ONNX Runtime's.
        places: (float32 outputs, 2) int64, first element in the buffer and number of elements.
        views: each of them in its shape.
        others: outputs of other types, each in an array of its own.
    """

    binding: Any
    places: NDArray[np.int64]
    views: tuple[NDArray[np.float32], ...]
    others: tuple[Array, ...]


class HostLane:
    """A lane on the CPU."""

    def __init__(self, session: Any, tensors: Sequence[str], shapes: Shapes, size: int) -> None:
        """Make a lane.

        Args:
            session: of a model whose outputs include those ``tensors`` that are not its inputs.
            tensors: to count.
            shapes: expected of inputs and ``tensors``.
            size: samples of the largest slice.

        Raises:
            EngineError: a tensor is not of numbers.
            MemoryError: the buffer is larger than the memory.
        """
        self._session = session
        self._shapes = shapes
        self._inputs = tuple(port.name for port in session.get_inputs())
        types = {port.name: port.type for port in session.get_outputs()}
        tapped = [name for name in tensors if name not in self._inputs]
        self._dtypes = {name: _dtype(name, types[name]) for name in tapped}
        self._floats = tuple(
            name for name in tapped if self._dtypes[name] == np.float32 and not shapes.shared(name)
        )
        self._others = tuple(name for name in tapped if name not in self._floats)
        self._fed = tuple(name for name in tensors if name in self._inputs)
        names = (*self._floats, *self._others, *self._fed)
        self._axes = [shapes.axis(name) for name in names]
        self._order = [names.index(name) for name in tensors]
        self._tensors = tuple(tensors)
        self._counts = Accumulators(names)
        self._buffer = np.empty(self._end(size), np.float32)
        self._bound: dict[int, Bound] = {}
        self._expected = True
        self.seconds = 0.0

    def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
        """Run one slice and count; see Lane."""
        if self._dtypes and not (self._expected and self._run_bound(arrays, samples)):
            self._run_free(arrays, samples)
        for number, name in enumerate(self._fed, len(self._dtypes)):
            self._counts.add(number, arrays[name], samples, self._axes[number])
        found: NDArray[np.float64] = self._counts.ranges()[self._order]
        return lambda: found

    def take(self) -> dict[str, Histogram]:
        """Return what was counted since the last call, by tensor, and start anew."""
        self.seconds = 0.0
        found = self._counts.take()
        return {name: found[name] for name in self._tensors}

    def _run_bound(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> bool:
        """Run with the lane's buffers; return whether the shapes were the expected ones."""
        size = len(samples)
        if any(arrays[name].shape != self._shapes.of(name, size) for name in self._inputs):
            return False
        if size not in self._bound:
            if self._end(size) > len(self._buffer):  # rare: a tensor that shrinks with the batch
                return False
            self._bound[size] = self._bind(size)
        bound = self._bound[size]
        try:
            self._infer(bound.binding, arrays)
        except EngineError:  # a shape depends on the data; what else it may be shows again
            self._expected = False
            return False
        self._counts.add_buffer(self._buffer, bound.places, bound.views, samples, self._axes)
        for number, values in enumerate(bound.others, len(self._floats)):
            self._add(number, values, samples)
        return True

    def _run_free(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> None:
        """Run with buffers of ONNX Runtime's."""
        binding = self._session.io_binding()
        for name in (*self._floats, *self._others):
            binding.bind_output(name, "cpu")
        self._infer(binding, arrays)
        outputs = zip((*self._floats, *self._others), binding.get_outputs(), strict=True)
        for number, (name, output) in enumerate(outputs):
            self._add(number, _view(output, self._dtypes[name]), samples)

    def _add(self, number: int, values: Array, samples: NDArray[np.int64]) -> None:
        """Count an output; one that all samples share, once for each of them.

        So its weight does not depend on how the samples are cut.
        """
        name = (*self._floats, *self._others)[number]
        for _ in samples if self._shapes.shared(name) else samples[:1]:
            self._counts.add(number, values, samples, self._axes[number])

    def _bind(self, size: int) -> Bound:
        places = self._places(size)
        views = tuple(
            self._buffer[start : start + count].reshape(self._shapes.of(name, size))
            for name, (start, count) in zip(self._floats, places, strict=True)
        )
        others = tuple(
            np.empty(self._shapes.of(name, size), self._dtypes[name]) for name in self._others
        )
        binding = self._session.io_binding()
        for name, array in zip((*self._floats, *self._others), (*views, *others), strict=True):
            kind = _element_type(array.dtype)
            binding.bind_output(name, "cpu", 0, kind, array.shape, array.ctypes.data)
        return Bound(binding, places, views, others)

    def _places(self, size: int) -> NDArray[np.int64]:
        """Return (float32 outputs, 2): where each lies in the buffer, and its elements."""
        counts = [prod(self._shapes.of(name, size)) for name in self._floats]
        spaces = [-(-count // ALIGNED) * ALIGNED for count in counts]
        starts = np.cumsum([0, *spaces])[:-1]
        return np.stack([starts, counts], axis=1).astype(np.int64)

    def _end(self, size: int) -> int:
        """Return the elements of the buffer that a slice of ``size`` samples needs."""
        return int(self._places(size)[-1].sum()) if self._floats else 0

    def _infer(self, binding: Any, arrays: Mapping[str, Array]) -> None:
        started = time.perf_counter()
        with translated("ONNX Runtime could not run the model"):
            for name in self._inputs:
                binding.bind_cpu_input(name, np.ascontiguousarray(arrays[name]))
            self._session.run_with_iobinding(binding)
        self.seconds += time.perf_counter() - started


def _dtype(name: str, kind: str) -> np.dtype[np.generic]:
    if kind != BFLOAT16 and kind not in DTYPES:
        raise EngineError(
            f"tensor {name!r} is a {kind}, whose values cannot be counted; expected numbers of 8 "
            "bits or more; keep what makes it out of the quantized part of the model"
        )
    return np.dtype(ml_dtypes.bfloat16 if kind == BFLOAT16 else DTYPES[kind])


def _element_type(dtype: np.dtype[np.generic]) -> Any:
    """Return the type as ``bind_output`` takes it: NumPy's, or ONNX's number."""
    import onnx

    return onnx.TensorProto.BFLOAT16 if dtype == ml_dtypes.bfloat16 else dtype.type


def _view(output: Any, dtype: np.dtype[np.generic]) -> Array:
    """Return an OrtValue's elements without copying them; valid while the value lives."""
    shape = tuple(output.shape())
    size = prod(shape) * dtype.itemsize
    if size == 0:
        return np.empty(shape, dtype)
    memory = (ctypes.c_byte * size).from_address(output.data_ptr())
    return np.frombuffer(memory, dtype).reshape(shape)
