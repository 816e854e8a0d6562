"""TensorRT's runtime as far as it is used to run plans, over the simulated GPU.

It stands where the genuine one cannot: that needs an NVIDIA GPU.  Its classes have the members of
the Protocols in api_run.py, which tests/trt_bindings holds to the genuine bindings.

Its engine computes ``y = 2 x`` for x [-1, 3] and, if ``picky``, ``rows``: the numbers of the rows
of x whose first element is positive, so its shape depends on the data.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from quantlab.engines.trt.api_run import Module
from quantlab.engines.trt.capabilities import RTX, TABLE
from quantlab.engines.trt.library import Library
from tests.cuda.simulated import Cuda

Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

LAYERS: list[dict[str, Any]] = [
    {
        "Name": "double + relu",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
    },
    {"Name": "tail", "LayerType": "PointWise", "Inputs": [], "Outputs": []},
]


@dataclass
class World:
    """What the stand-in is told to do, and what it was asked.

    Attributes:
        refuses: the names of calls that fail.
        says: what the logger hears when one does.
        validity: TensorRT-RTX's answer: validity and diagnostic bits.
        calls: names of calls that matter, in order.
    """

    cuda: Cuda
    profiles: Sequence[Profile] = (((1, 3), (2, 3), (4, 3)),)
    picky: bool = False
    asynchronous: bool = False
    dtype: str = "FLOAT"
    location: str = "DEVICE"
    capturable: bool = True
    refuses: set[str] = field(default_factory=set)
    says: str = ""
    validity: tuple[str, int] = ("VALID", 0)
    compiled: bytes = b"kernels"
    calls: list[str] = field(default_factory=list)
    logger: Any = None

    def fails(self, call: str) -> bool:
        if call not in self.refuses:
            return False
        if self.says:
            self.logger.log(SimpleNamespace(name="ERROR"), self.says)
        return True


class Base:
    """A class to be subclassed; its C++ half must be made."""

    made = False

    def __init__(self) -> None:
        self.made = True


class Context:
    """IExecutionContext."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.active_optimization_profile = 0 if len(world.profiles) == 1 else -1
        self.profiler: Any = None
        self._shape: tuple[int, ...] = (-1, 3)
        self._at: dict[str, int] = {}
        self._allocator: Any = None

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle
        self._world.calls.append(f"profile {profile_index}")
        self.active_optimization_profile = profile_index
        return not self._world.fails("profile")

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self._world.profiles[self.active_optimization_profile]
        assert name == "x"
        assert all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        self._shape = tuple(shape)
        return not self._world.fails("shape")

    def infer_shapes(self) -> list[str]:
        if self._world.fails("infer"):
            raise RuntimeError("contradiction")
        return ["x"] if self._world.fails("known") else []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1,) if name == "rows" else self._shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory
        self._at[name] = memory
        return not self._world.fails("address")

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        assert name == "rows"
        assert output_allocator.made
        self._allocator = output_allocator
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream
        return self._world.capturable

    def execute_async_v3(self, stream_handle: int) -> bool:
        world = self._world
        stream = next(s for s in world.cuda.streams if s.handle == stream_handle)
        if world.fails("execute"):
            return False
        size = 4 * int(np.prod(self._shape))
        x = world.cuda.array(self._at["x"], size).view(np.float32)
        y = world.cuda.array(self._at["y"], size).view(np.float32)
        world.cuda.queue(stream, lambda: np.copyto(y, 2 * x))
        if world.picky:
            stream.synchronize()  # as far as TensorRT must know the shape
            rows = np.flatnonzero(x.reshape(self._shape)[:, 0] > 0)
            place = self._allocate(rows.nbytes, stream_handle)
            if not place:
                return False
            if rows.size:
                target = world.cuda.array(place, rows.nbytes).view(np.int64)
                world.cuda.queue(stream, lambda: np.copyto(target, rows))
            self._allocator.notify_shape("rows", rows.shape)
        if self.profiler is not None:
            assert self.profiler.made
            for layer in LAYERS:
                self.profiler.report_layer_time(str(layer["Name"]), 0.5)
        return True

    def _allocate(self, size: int, stream: int) -> int:
        known = self._at.get("rows", 0)
        if self._world.asynchronous:
            address = self._allocator.reallocate_output_async("rows", known, size, 256, stream)
        else:
            address = self._allocator.reallocate_output("rows", known, size, 256)
        return int(address)


class Engine:
    """ICudaEngine."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.num_io_tensors = 3 if world.picky else 2
        self.num_optimization_profiles = len(world.profiles)

    def get_tensor_name(self, index: int) -> str:
        return ("y", "x", "rows")[index]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="INPUT" if name == "x" else "OUTPUT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1,) if name == "rows" else (-1, 3)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="INT64" if name == "rows" else self._world.dtype)

    def get_tensor_location(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self._world.location if name == "x" else "DEVICE")

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name == "x"
        return list(self._world.profiles[profile_index])

    def create_execution_context(self, config: Any = None) -> Context | None:
        self._world.calls.append("context" if config is None else "configured context")
        return None if self._world.fails("context") else Context(self._world)

    def create_engine_inspector(self) -> SimpleNamespace:
        text = json.dumps({"Layers": LAYERS})
        return SimpleNamespace(execution_context=None, get_engine_information=lambda _: text)

    def create_runtime_config(self) -> SimpleNamespace:
        world = self._world

        def deserialize(blob: bytes) -> bool:
            world.calls.append(f"cache of {len(blob)} bytes")
            return not world.fails("cache")

        cache = SimpleNamespace(serialize=lambda: world.compiled, deserialize=deserialize)
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=bool)


def module(world: World) -> Module:
    """Return what stands for the Python module."""

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            world.logger = logger
            if world.fails("runtime"):
                raise TypeError("pybind11: factory function returned nullptr")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            assert serialized_engine
            world.calls.append(f"host code allowed: {self.engine_host_code_allowed}")
            if world.fails("raise"):
                raise RuntimeError("out of host memory")
            return None if world.fails("deserialize") else Engine(world)

        def get_engine_validity(self, buffer: bytes) -> tuple[str, int]:
            assert buffer
            return world.validity

    class Refitter:
        def __init__(self, engine: Engine, logger: Any) -> None:
            assert isinstance(engine, Engine)
            assert logger is world.logger

        def refit_cuda_engine(self) -> bool:
            world.calls.append("refitted")
            return not world.fails("refit")

    class OnnxParserRefitter:
        def __init__(self, refitter: Refitter, logger: Any) -> None:
            assert isinstance(refitter, Refitter)
            assert logger is world.logger

        def refit_from_file(self, model: str) -> bool:
            world.calls.append(f"weights of {model}")
            return not world.fails("weights")

    kinds: dict[str, Callable[[], Any]] = {
        name: type(name, (Base,), {}) for name in ("ILogger", "IOutputAllocator", "IProfiler")
    }
    bits = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "MALFORMED_ENGINE": 32}
    made = SimpleNamespace(
        **kinds,
        Runtime=Runtime,
        Refitter=Refitter,
        OnnxParserRefitter=OnnxParserRefitter,
        LayerInformationFormat=SimpleNamespace(JSON=1),
        EngineValidity=SimpleNamespace(INVALID="INVALID"),
        EngineInvalidityDiagnostics=SimpleNamespace(__members__=bits),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
        __version__="10.3.0.26",
    )
    return cast(Module, made)


def library(world: World, *, rtx: bool = False) -> Library:
    """Return it as quantlab loads it."""
    found = module(world)
    if rtx:
        return Library("tensorrt-rtx", found, RTX)
    return Library("tensorrt", found, TABLE[10, 0])


def values(rows: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
