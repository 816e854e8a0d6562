"""What stands in for TensorRT 8.6 and 10, whose libraries no test machine has.

It has the classes that building uses and does what NVIDIA's documents and logs say of calibration:
a cache is read first, and taken if its header is that of this very version and algorithm; else
batches are asked for until there are no more, and the cache is handed over.  It parses an ONNX file
as far as names go, gives each Gemm a tensor that the model does not have, and builds plans that say
what they were built with.  The genuine bindings are tested in tests/trt_bindings.
"""

import ctypes
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from quantlab.cuda.device import Device
from quantlab.engines.trt.api_build import Module
from quantlab.engines.trt.library import Library, library

DataType = Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "BF16"])
BuilderFlag = Enum(
    "BuilderFlag",
    ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "STRIP_PLAN", "TF32", "VERSION_COMPATIBLE"],
)
MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE", "TACTIC_DRAM"])
HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
ProfilingVerbosity = Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class CreationFlag(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


NUMBERS = {"8.6.1": 8601, "9.2.0": 9200, "10.3.0": 100300, "10.16.1.11": 101601}
"""How the headers of caches write a version."""

ELEMENTS = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
}


class Base:
    """A class to be subclassed."""

    def __init__(self) -> None:
        pass


class Entropy(Base):
    suffix = "EntropyCalibration2"


class MinMax(Base):
    suffix = "MinMaxCalibration"


@dataclass
class Tensor:
    name: str
    dtype: Any
    shape: tuple[int, ...] = (1,)
    is_shape_tensor: bool = False


@dataclass
class Layer:
    name: str
    metadata: str
    outputs: list[Tensor]
    precision: Any = None
    types: dict[int, Any] = field(default_factory=dict)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def set_output_type(self, index: int, dtype: Any) -> None:
        self.types[index] = dtype


@dataclass
class Network:
    flags: int
    inputs: list[Tensor] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    num_outputs: int = 0

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class Parser:
    def __init__(self, network: Network, logger: Any) -> None:  # noqa: ARG002  as TensorRT's
        self.network = network
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        graph = onnx.load(path).graph
        for value in graph.input:
            kind = value.type.tensor_type
            shape = tuple(d.dim_value or -1 for d in kind.shape.dim)
            self.network.inputs.append(Tensor(value.name, ELEMENTS[kind.elem_type], shape))
        for number, node in enumerate(graph.node):
            made = [Tensor(name, DataType.FLOAT) for name in node.output]
            if node.op_type == "Gemm":
                own = Tensor(f"(Unnamed Layer* {number}) [Shuffle]_output", DataType.FLOAT)
                self.network.layers.append(Layer(own.name, "", [own]))
            metadata = f"[ONNX Layer: {node.name}]"
            self.network.layers.append(Layer(node.name, metadata, made))
        self.network.num_outputs = len(graph.output)
        return True

    def get_used_vc_plugin_libraries(self) -> list[str]:
        return ["libown.so"]


@dataclass
class TimingCache:
    data: bytes

    def serialize(self) -> memoryview:
        return memoryview(self.data)


class Config:
    def __init__(self, version: str) -> None:
        self.version = version
        self.flags = {BuilderFlag.TF32}
        self.pools: dict[Any, int] = {}
        self.profiles: list[Any] = []
        self.int8_calibrator: Any = None
        self.calibration_profile: Any = None
        self.timing: TimingCache | None = None

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: Any) -> bool:
        self.calibration_profile = profile
        return True

    def create_timing_cache(self, data: bytes) -> TimingCache | None:
        return None if data == b"garbage" else TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, *, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and cache.data not in (b"", f"times of {self.version}".encode()):
            return False
        self.timing = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return TimingCache(f"times of {self.version}".encode()) if self.timing else None


class Profile(dict[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]):
    def set_shape(
        self, name: str, least: Sequence[int], usual: Sequence[int], most: Sequence[int]
    ) -> None:
        self[name] = (least, usual, most)


class StandIn(SimpleNamespace):
    """The module.

    Args:
        version: of TensorRT.
        refuses: whether it takes no cache.
        stops_after: batches that it asks for at most.
        fails: what it says when it does not start.
        unbuilt: what it says when it gives no plan.
    """

    def __init__(
        self,
        version: str,
        *,
        refuses: bool = False,
        stops_after: int = 1000,
        fails: str = "",
        unbuilt: str = "",
    ) -> None:
        super().__init__(
            __version__=version,
            DataType=DataType,
            BuilderFlag=BuilderFlag,
            MemoryPoolType=MemoryPoolType,
            HardwareCompatibilityLevel=HardwareCompatibilityLevel,
            ProfilingVerbosity=ProfilingVerbosity,
            NetworkDefinitionCreationFlag=CreationFlag,
            ILogger=Base,
            IProgressMonitor=Base,
            IInt8EntropyCalibrator2=Entropy,
            IInt8MinMaxCalibrator=MinMax,
            OnnxParser=Parser,
        )
        self.refuses = refuses
        self.stops_after = stops_after
        self.fails = fails
        self.unbuilt = unbuilt
        self.config: Config | None = None
        self.network: Network | None = None

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:  # noqa: ARG002
        return True

    def Builder(self, logger: Any) -> "Builder":  # noqa: N802  TensorRT's name
        if self.fails:
            logger.log(Severity["ERROR"], self.fails)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Builder(self, logger)


class Builder:
    def __init__(self, module: StandIn, logger: Any) -> None:
        self.module = module
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config(self.module.__version__)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
        self.module.config, self.module.network = config, network
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 1)
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        if self.module.unbuilt:
            self._say("ERROR", self.module.unbuilt)
            return None
        if config.int8_calibrator is not None and not self._calibrate(config, network):
            return None
        names = sorted(flag.name for flag in config.flags)
        return memoryview(json.dumps({"flags": names, "network": network.flags}).encode())

    def _say(self, severity: str, text: str) -> None:
        self.logger.log(Severity[severity], text)

    def _calibrate(self, config: Config, network: Network) -> bool:
        asked, names = config.int8_calibrator, [tensor.name for tensor in network.inputs]
        data = asked.read_calibration_cache()
        wanted = f"TRT-{NUMBERS[self.module.__version__]}-{asked.suffix}"
        if data is not None:
            self._say("INFO", f"Reading Calibration Cache for calibrator: {asked.suffix}")
            if not self.module.refuses and data.decode().splitlines()[0] == wanted:
                self._say("INFO", "Generated calibration scales using calibration cache.")
                for tensor in (t for layer in network.layers for t in layer.outputs):
                    if f"\n{tensor.name}: " not in data.decode():
                        self._say(
                            "WARNING",
                            f"Missing scale and zero-point for tensor {tensor.name}, expect fall "
                            "back to non-int8 implementation",
                        )
                return True
            text = "Calibration table does not match calibrator algorithm type."
            self._say("WARNING", text)
        self._say("INFO", "Starting Calibration.")
        taken = 0
        while taken < self.module.stops_after and asked.get_batch(names[::-1]) is not None:
            self._say("INFO", f"Calibrated batch {taken} in 0.1 seconds.")
            taken += 1
        if taken == 0:
            self._say("ERROR", 'Tensor "x" is bound to nullptr')
            return False
        made = "".join(f"{t.name}: 3c010a14\n" for layer in network.layers for t in layer.outputs)
        asked.write_calibration_cache(memoryview(f"{wanted}\n{made}".encode()))
        return True


def as_library(module: StandIn) -> Library:
    """Return a stand-in as a Library."""
    return library("tensorrt", cast(Module, module))


def stand_in(version: str) -> Library:
    """Return a stand-in without faults as a Library."""
    return as_library(StandIn(version))


def seen(found: Library) -> tuple[Config, Network]:
    """Return config and network of the last build with a stand-in."""
    module = cast(StandIn, found.module)
    assert module.config is not None
    assert module.network is not None
    return module.config, module.network


class HostDevice:
    """A GPU whose memory is the host's."""

    name = "a GPU"
    architecture = 86

    def __init__(self) -> None:
        self.cuda = self
        self.memory: list[NDArray[np.uint8]] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def mem_alloc(self, size: int) -> int:
        self.memory.append(np.zeros(size, np.uint8))
        return int(self.memory[-1].ctypes.data)

    def memcpy_htod(self, address: int, values: NDArray[np.generic]) -> None:
        ctypes.memmove(address, values.ctypes.data, values.nbytes)


def host_device() -> Device:
    """Return a HostDevice as a Device."""
    return cast(Device, HostDevice())


def batches_of(arrays: Sequence[Mapping[str, NDArray[np.generic]]]) -> Any:
    """Return what begins a pass over ``arrays``."""
    return lambda: iter(arrays)
