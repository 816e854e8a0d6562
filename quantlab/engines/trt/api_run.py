"""The part of TensorRT's Python API that loading, running and inspecting uses, as Protocols.

As ``api_build.py``, which see: a member that ``ONLY`` does not list exists in each of 8.6, 10, 11
and TensorRT-RTX.

Source: the docstrings of the bindings 8.6.1, 10.16.1.11, 11.4.0.106 and of tensorrt_rtx 1.7.1.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, overload

from quantlab.engines.trt import api_build
from quantlab.engines.trt.api_build import DataType, Dims, IHostMemory, ILogger

ONLY: dict[str, frozenset[str]] = {
    "ICudaEngine.create_runtime_config": frozenset({"rtx"}),
    "IExecutionContext.is_stream_capturable": frozenset({"rtx"}),
    "IRuntimeConfig.create_runtime_cache": frozenset({"rtx"}),
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": frozenset({"rtx"}),
    "IRuntimeConfig.set_runtime_cache": frozenset({"rtx"}),
    "Module.DynamicShapesKernelSpecializationStrategy": frozenset({"rtx"}),
    "Module.EngineInvalidityDiagnostics": frozenset({"rtx"}),
    "Module.EngineValidity": frozenset({"rtx"}),
    "Module.OnnxParserRefitter": frozenset({"10", "11", "rtx"}),
    "Runtime.get_engine_validity": frozenset({"rtx"}),
}
"""As in api_build.py."""


class TensorIOMode(Protocol):
    """Which way a tensor goes, by ``name``."""

    name: str


class TensorLocation(Protocol):
    """On which side a tensor lies, by ``name``."""

    name: str


class LayerInformationFormat(Protocol):
    """Forms of the inspector's answers."""

    JSON: "ClassVar[LayerInformationFormat]"


class EngineValidity(Protocol):
    """Whether a plan will run here."""

    INVALID: "ClassVar[EngineValidity]"


class EngineInvalidityDiagnostics(Protocol):
    """Bits that say why it will not."""

    __members__: "ClassVar[Mapping[str, EngineInvalidityDiagnostics]]"

    def __int__(self) -> int:
        """Return the bit."""


class DynamicShapesKernelSpecializationStrategy(Protocol):
    """When kernels for the shape at hand are compiled."""

    EAGER: "ClassVar[DynamicShapesKernelSpecializationStrategy]"


class IProfiler(Protocol):
    """Receives the time of each layer; to be subclassed."""

    def __init__(self) -> None:
        """Make the C++ half; a subclass must call it."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Take a layer's time of one inference."""


class IOutputAllocator(Protocol):
    """Gives memory for outputs whose shape depends on the data; to be subclassed."""

    def __init__(self) -> None:
        """Make the C++ half; a subclass must call it."""

    def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
        """Return an address with ``size`` bytes; 0 makes the inference fail."""

    def reallocate_output_async(
        self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        """The same, from TensorRT 10 on; TensorRT-RTX knows only this."""

    def notify_shape(self, tensor_name: str, shape: Dims) -> None:
        """Take the shape that came out."""


class IRuntimeCache(Protocol):
    """Kernels that TensorRT-RTX compiled here."""

    def serialize(self) -> IHostMemory:
        """Return it as bytes."""

    def deserialize(self, blob: bytes) -> bool:
        """Read it; False if it was made by another version, GPU or driver."""


class IRuntimeConfig(Protocol):
    """How a context runs."""

    dynamic_shapes_kernel_specialization_strategy: DynamicShapesKernelSpecializationStrategy

    def create_runtime_cache(self) -> IRuntimeCache:
        """Return an empty cache."""

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        """Use a cache."""


class IExecutionContext(Protocol):
    """One at a time of an engine's inferences, with memory for what lies in between."""

    active_optimization_profile: int
    profiler: IProfiler

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile; what that needs is queued on the stream."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Set the shape of an input with open axes."""

    def infer_shapes(self) -> list[str]:
        """Compute the outputs' shapes; return the inputs that are not told yet.

        Raises:
            RuntimeError: the shapes contradict each other.
        """

    def get_tensor_shape(self, name: str) -> Dims:
        """Return a shape; -1 where it depends on the data."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where a tensor lies."""

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        """Say who gives an output's memory."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue an inference; False: the logger was told why."""

    def is_stream_capturable(self, stream: int) -> bool:
        """Return whether an inference can be captured in a CUDA graph."""


class EngineInspector(Protocol):
    """Tells what a plan's layers are."""

    execution_context: IExecutionContext

    def get_engine_information(self, format: LayerInformationFormat) -> str:  # noqa: A002  # TensorRT's name
        """Return all layers."""


class ICudaEngine(Protocol):
    """A loaded plan: weights and kernels on the device, shared by its contexts."""

    num_io_tensors: int
    num_optimization_profiles: int

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Return which it is."""

    def get_tensor_shape(self, name: str) -> Dims:
        """Return its shape; -1 is an open axis."""

    def get_tensor_dtype(self, name: str) -> DataType:
        """Return its element type."""

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Return where it must lie."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """Return the least, usual and largest shape of an input in a profile."""

    # A context; None if the device's memory does not hold it.
    @overload
    def create_execution_context(self) -> IExecutionContext | None: ...

    # The same, where there is an IRuntimeConfig.
    @overload
    def create_execution_context(
        self, runtime_config: IRuntimeConfig
    ) -> IExecutionContext | None: ...

    def create_runtime_config(self) -> IRuntimeConfig:
        """Return the default config."""

    def create_engine_inspector(self) -> EngineInspector:
        """Return an inspector."""


class Runtime(Protocol):
    """Loads plans."""

    engine_host_code_allowed: bool

    def __init__(self, logger: ILogger) -> None:
        """Start TensorRT.

        Raises:
            TypeError: it does not start; its logger was told why.
        """

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """Return the engine; None: the logger was told why."""

    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        """Return that of a plan or its head, and bits of EngineInvalidityDiagnostics."""


class Refitter(Protocol):
    """Gives an engine other weights."""

    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        """Refit ``engine``."""

    def refit_cuda_engine(self) -> bool:
        """Put the new weights in; False: some are missing."""


class OnnxParserRefitter(Protocol):
    """Takes weights from an ONNX file."""

    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        """Give weights to ``refitter``."""

    def refit_from_file(self, model: str) -> bool:
        """Read them; False: the logger was told why."""


class Module(api_build.Module, Protocol):
    """TensorRT itself."""

    DynamicShapesKernelSpecializationStrategy: type[DynamicShapesKernelSpecializationStrategy]
    EngineInvalidityDiagnostics: type[EngineInvalidityDiagnostics]
    EngineValidity: type[EngineValidity]
    IOutputAllocator: type[IOutputAllocator]
    IProfiler: type[IProfiler]
    LayerInformationFormat: type[LayerInformationFormat]
    OnnxParserRefitter: type[OnnxParserRefitter]
    Refitter: type[Refitter]
    Runtime: type[Runtime]
