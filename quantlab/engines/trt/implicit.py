"""Implicit quantization, TensorRT 8.6 to 10: scales from our cache, or from TensorRT itself.

Serving a cache: TensorRT asks the calibrator for a cache first.  It takes it if the header names
its own version and the calibrator's algorithm; if not, it calibrates, and asks for batches.  We
have none to give: being asked is the proof that the cache was refused, and the build fails.

Calibrating with TensorRT: it asks for batches until there are no more, and then gives the cache.
A batch is a device pointer for each input, in the order in which they are asked for, to float32
(also where the network's input is FP16) of exactly the calibration profile's shape; a batch of
another size is left out.  Exceptions in a calibrator are printed and taken as "no more batches", so
they are kept and raised after the build, and batches are counted.

Sources: the headers of TensorRT 8.6 and 10.16 (IInt8Calibrator) and python/src/infer/pyInt8.cpp;
the lines that the log is searched for are those of NVIDIA/TensorRT issues 1785 and 4058.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, SupportsInt

import numpy as np

from quantlab import cache
from quantlab.cuda.device import Device
from quantlab.engines.base import Array, Batches
from quantlab.engines.trt.api_build import IInt8Calibrator, INetworkDefinition, Module
from quantlab.engines.trt.callbacks import Kept, deprecated
from quantlab.engines.trt.log import Log
from quantlab.engines.trt.network import nodes, tensors
from quantlab.engines.trt.profiles import Shape, shape_of
from quantlab.errors import CacheError, CalibrationError, EngineError

MINMAX: cache.Algorithm = "MinMaxCalibration"
ENTROPY: cache.Algorithm = "EntropyCalibration2"

FLOATS = frozenset({"FLOAT", "HALF"})
"""Names of the element types that are quantized."""

DTYPES = {
    **{"FLOAT": "float32", "HALF": "float32"},
    **{"INT32": "int32", "INT64": "int64", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool"},
}
"""NumPy's type of what a calibrator hands over, by the type of the network's input."""


def algorithm(stored: cache.Cache) -> cache.Algorithm:
    """Return whose calibrator serves a cache: the scales mean the same under each algorithm."""
    return MINMAX if stored.header.algorithm == MINMAX else ENTROPY


def served(stored: cache.Cache, version: str) -> bytes:
    """Return a cache under the header of the TensorRT ``version`` that will read it.

    Raises:
        CacheError: that TensorRT reads no cache.
    """
    header = cache.header_for(version, algorithm(stored))
    return cache.serialize(replace(stored, header=header))


def require_scales(
    stored: cache.Cache, network: INetworkDefinition, model: Path, source: str
) -> tuple[str, ...]:
    """Check that a cache has a scale for every float tensor of the model in the network.

    Tensors that the parser made itself have no name in the model, so nothing can be known of them.

    Returns:
        Those of them without a scale, in the network's order.

    Raises:
        CacheError: a tensor of the model has none; the message names it.
    """
    found = [t.name for t in tensors(network) if t.dtype.name in FLOATS and not t.is_shape_tensor]
    named = activations(model)
    needed = [name for name in found if name in named]
    try:
        cache.require(stored, needed, source)
    except CacheError as error:
        raise CacheError(
            f"{error} ('calibration: {{tensors: all}}' collects all of them)"
        ) from error
    return tuple(n for n in found if n not in named and n not in stored.scales)


def activations(model: Path) -> frozenset[str]:
    """Return the names of an ONNX file's tensors that nodes make."""
    return frozenset(name for node in nodes(model) for name in node.output if name)


class Served:
    """A cache that is given to TensorRT, and what TensorRT did with it.

    Attributes:
        data: the cache, under the header that is expected.
        reads: how often it was read.
        asked: whether a batch was asked for: then it was refused.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0
        self.asked = False

    def batch(self, names: Sequence[str]) -> None:  # noqa: ARG002  # as Fed.batch
        """Note that TensorRT wants to calibrate; there is nothing to give."""
        self.asked = True

    def read(self) -> bytes:
        """Return the cache."""
        self.reads += 1
        return self.data

    def write(self, data: bytes) -> None:
        """Ignore it: some TensorRTs hand the cache back after reading it."""

    def check(self, library: object, log: Log) -> tuple[str, ...]:
        """Check after the build that the scales are those of the cache; return notes.

        Raises:
            CacheError: TensorRT refused the cache, or never asked for it.
        """
        header = self.data.partition(b"\n")[0].decode()
        said = "; ".join(dict.fromkeys(log.calibration)) or log.why() or "nothing"
        if self.asked:
            raise CacheError(
                f"{library} refused the calibration cache, headed {header}: it asked for a batch "
                f"to calibrate by itself. Its log: {said}. Check 'calibration: {{tensorrt: ...}}', "
                "or build with 'quantization: explicit'"
            )
        if not self.reads:
            raise CacheError(
                f"{library} never read the calibration cache, so nothing is quantized by it. "
                f"Its log: {said}. Build with 'quantization: explicit'"
            )
        if log.read_cache:
            return ()
        return (f"{library} read the calibration cache and does not say that it used it",)


class Memory(Protocol):
    """Where batches are put for TensorRT."""

    def put(self, name: str, values: Array) -> int:
        """Copy an input's contiguous values; return the address, valid until the next one."""
        ...


class DeviceMemory:
    """A GPU's memory, one allocation an input."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._held: dict[str, SupportsInt] = {}

    def put(self, name: str, values: Array) -> int:
        """Copy to the GPU and wait for it; see ``Memory.put``."""
        with self._device.current():
            if name not in self._held:
                self._held[name] = self._device.cuda.mem_alloc(max(1, values.nbytes))
            address = int(self._held[name])
            self._device.cuda.memcpy_htod(address, values)
        return int(address)


class Fed:
    """Batches that TensorRT calibrates on, and how many it took.

    Args:
        batches: begins a pass over the calibration samples.
        inputs: shape and type (a key of DTYPES) of each input of the network, every axis fixed.
        memory: where batches go.

    Attributes:
        kept: what was raised inside of a callback.
        taken: batches that were handed over.
        left_out: batches of another shape, such as a last one that is not full.
        ended: whether TensorRT went on to the end.
        cache: the calibration cache that TensorRT made; empty before.
    """

    def __init__(
        self, batches: Batches, inputs: Mapping[str, tuple[Shape, str]], memory: Memory
    ) -> None:
        self.kept = Kept()
        self.taken = 0
        self.left_out = 0
        self.ended = False
        self.cache = b""
        self._inputs = inputs
        self._memory = memory
        self._batches: Iterator[Mapping[str, Array]] = iter(batches())

    def batch(self, names: Sequence[str]) -> list[int] | None:
        """Return the next full batch's addresses, in the order of ``names``; None at the end."""
        with self.kept:
            for found in self._batches:
                if self._full(found):
                    addresses = [self._put(name, found) for name in names]
                    self.taken += 1
                    return addresses
                self.left_out += 1
            self.ended = True
        return None

    def read(self) -> None:
        """Return no cache, so that TensorRT calibrates."""

    def write(self, data: bytes) -> None:
        """Take the cache that TensorRT made."""
        self.cache = data

    def check(self, library: object, log: Log) -> tuple[str, ...]:
        """Check after the build that TensorRT calibrated on every full batch; return notes.

        Raises:
            CalibrationError: it did not.
        """
        self.kept.release()
        said = "; ".join(dict.fromkeys(log.calibration)) or log.why() or "nothing"
        if not self.ended or not self.cache:
            raise CalibrationError(
                f"{library} did not calibrate to the end: it took {self.taken} batches and "
                f"{'gave no cache' if self.ended else 'asked for no more'}. Its log: {said}"
            )
        notes = [f"{library} calibrated by itself on {self.taken} batches"]
        if self.left_out:
            notes.append(
                f"{self.left_out} batches were left out of TensorRT's calibration, because they "
                "are not full"
            )
        return tuple(notes)

    def _full(self, found: Mapping[str, Array]) -> bool:
        return all(found[name].shape == shape for name, (shape, _) in self._inputs.items())

    def _put(self, name: str, found: Mapping[str, Array]) -> int:
        if name not in self._inputs:
            raise EngineError(f"TensorRT asked for a batch of {name!r}, which is no input")
        values = found[name]
        dtype = np.dtype(DTYPES[self._inputs[name][1]])
        if values.dtype.kind in "iu" and not np.array_equal(values.astype(dtype), values):
            raise CalibrationError(f"input {name!r}: a calibration sample exceeds {dtype.name}")
        return self._memory.put(name, np.ascontiguousarray(values, dtype))


def calibrator(module: Module, chosen: cache.Algorithm, source: Served | Fed) -> IInt8Calibrator:
    """Return a calibrator of ``chosen`` that asks ``source``; keep it for as long as the build."""
    with deprecated():
        base = module.IInt8MinMaxCalibrator if chosen == MINMAX else module.IInt8EntropyCalibrator2

        class Calibrator(base):  # type: ignore[misc,valid-type]  # the base exists once imported
            def __init__(self) -> None:
                base.__init__(self)

            def get_batch_size(self) -> int:
                return 1  # the network's own shapes hold the batch

            def get_batch(self, names: Sequence[str]) -> list[int] | None:
                return source.batch(names)

            def read_calibration_cache(self) -> bytes | None:
                return source.read()

            def write_calibration_cache(self, cache: memoryview) -> None:
                source.write(bytes(cache))

        made: IInt8Calibrator = Calibrator()
    return made


def first(batches: Batches, names: Collection[str]) -> dict[str, Shape]:
    """Return the shapes of the first calibration batch: those that TensorRT calibrates at.

    Raises:
        CalibrationError: there is no batch, or it lacks an input.
    """
    found = next(iter(batches()), None)
    if found is None:
        raise CalibrationError("there are no calibration samples for TensorRT to calibrate on")
    for name in names:
        if name not in found:
            raise CalibrationError(f"the calibration samples lack the input {name!r}")
    return {name: found[name].shape for name in names}


def inputs(
    network: INetworkDefinition, shapes: Mapping[str, Shape]
) -> dict[str, tuple[Shape, str]]:
    """Return shape and type of each input, as ``Fed`` wants them.

    Args:
        network: what will be calibrated.
        shapes: of the first calibration batch.

    Raises:
        EngineError: a shape that the input does not take, or a type that nothing can be fed for.
    """
    found = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        name, want, got = tensor.name, shape_of(tensor), shapes[tensor.name]
        if len(want) != len(got) or any(w not in (-1, g) for w, g in zip(want, got, strict=True)):
            raise EngineError(
                f"input {name!r}: TensorRT calibrates on batches of shape {list(want)}, and those "
                f"of the calibration samples are {list(got)}; change 'calibration: {{batch: ...}}'"
            )
        if tensor.dtype.name not in DTYPES:
            raise EngineError(f"input {name!r}: TensorRT cannot calibrate on {tensor.dtype.name}")
        found[name] = (got, tensor.dtype.name)
    return found
