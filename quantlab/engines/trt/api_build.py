"""The part of TensorRT's Python API that building uses, as Protocols.

TensorRT's bindings carry no types, so each class that is used has a Protocol of its name with the
members that are used, and mypy refuses every other.  tests/trt_bindings holds them to the genuine
bindings: a member that ``ONLY`` does not list exists in each of 8.6, 10, 11 and TensorRT-RTX.

Source: the docstrings of the bindings 8.6.1, 10.16.1.11, 11.4.0.106 and of tensorrt_rtx 1.7.1.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

ONLY: dict[str, frozenset[str]] = {
    "BuilderFlag.FP16": frozenset({"8", "10"}),
    "BuilderFlag.INT8": frozenset({"8", "10"}),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": frozenset({"8", "10"}),
    "BuilderFlag.STRIP_PLAN": frozenset({"10", "11", "rtx"}),
    "IBuilderConfig.int8_calibrator": frozenset({"8", "10"}),
    "IBuilderConfig.num_compute_capabilities": frozenset({"rtx"}),
    "IBuilderConfig.progress_monitor": frozenset({"10", "11", "rtx"}),
    "IBuilderConfig.set_calibration_profile": frozenset({"8", "10"}),
    "IBuilderConfig.set_compute_capability": frozenset({"rtx"}),
    "ILayer.precision": frozenset({"8", "10"}),
    "ILayer.set_output_type": frozenset({"8", "10"}),
    "Module.ComputeCapability": frozenset({"rtx"}),
    "Module.IInt8EntropyCalibrator2": frozenset({"8", "10"}),
    "Module.IInt8MinMaxCalibrator": frozenset({"8", "10"}),
    "Module.IProgressMonitor": frozenset({"10", "11", "rtx"}),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": frozenset({"8", "10"}),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": frozenset({"10", "11", "rtx"}),
    "ParserError.node_name": frozenset({"10", "11", "rtx"}),
    "ParserError.node_operator": frozenset({"10", "11", "rtx"}),
}
"""Members that not every generation has, as "Class.member", and the generations that do.

A class of ``Module`` that is listed takes its members with it.
"""


class Dims(Protocol):
    """A shape; -1 is an open axis."""

    def __len__(self) -> int:
        """Return the number of axes; negative ranks raise ValueError."""

    def __getitem__(self, index: int, /) -> int:
        """Return an axis."""


class DataType(Protocol):
    """Element types."""

    FLOAT: "ClassVar[DataType]"
    HALF: "ClassVar[DataType]"
    name: str


class Severity(Protocol):
    """``ILogger.Severity``: how grave a message is, by ``name``."""

    name: str


class ILogger(Protocol):
    """Receives TensorRT's messages; to be subclassed."""

    def __init__(self) -> None:
        """Make the C++ half; a subclass must call it."""

    def log(self, severity: Severity, msg: str) -> None:
        """Take a message, on whatever thread."""


class IProgressMonitor(Protocol):
    """Receives a build's progress; to be subclassed."""

    def __init__(self) -> None:
        """Make the C++ half; a subclass must call it."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins, inside another or not."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Step ``step``, from 0, of a phase is done; False cancels the build."""

    def phase_finish(self, phase_name: str) -> None:
        """A phase is over, whether all its steps were done or not."""


class IInt8Calibrator(Protocol):
    """Gives scales or batches to a build with implicit quantization; to be subclassed."""

    def __init__(self) -> None:
        """Make the C++ half; without it the process ends with a segmentation fault."""

    def get_batch_size(self) -> int:
        """Return the batch size: 1 where the network's own shapes hold the batch."""

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        """Return a device pointer for each of ``names``, in that order; None: no more."""

    def read_calibration_cache(self) -> bytes | None:
        """Return a cache, or None to calibrate."""

    def write_calibration_cache(self, cache: memoryview) -> None:
        """Take the cache; the memory is TensorRT's and goes after the call."""


class IInt8EntropyCalibrator2(IInt8Calibrator, Protocol):
    """Reads caches headed EntropyCalibration2."""


class IInt8MinMaxCalibrator(IInt8Calibrator, Protocol):
    """Reads caches headed MinMaxCalibration."""


class IHostMemory(Protocol):
    """Bytes that TensorRT owns, as a buffer."""

    nbytes: int

    if TYPE_CHECKING:  # Python 3.12 gave the C buffer protocol this name

        def __buffer__(self, flags: int, /) -> memoryview:
            """Expose the bytes."""


class ITimingCache(Protocol):
    """How long kernels took."""

    def serialize(self) -> IHostMemory:
        """Return it as bytes."""


class IOptimizationProfile(Protocol):
    """Shapes that a plan must take; true if it is valid."""

    def __bool__(self) -> bool:
        """Return whether every shape that was set is possible."""

    def set_shape(
        self,
        input: str,  # noqa: A002  # TensorRT's names, here and below
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        """Set the shapes of an input.

        Raises:
            ValueError: they are not ordered.
        """


class ITensor(Protocol):
    """A tensor of a network."""

    name: str
    dtype: DataType
    shape: Dims
    is_shape_tensor: bool


class ILayer(Protocol):
    """A layer of a network."""

    name: str
    metadata: str
    num_inputs: int
    num_outputs: int
    precision: DataType

    def get_input(self, index: int) -> ITensor | None:
        """Return an input; None where an optional one is not given."""

    def get_output(self, index: int) -> ITensor:
        """Return an output."""

    def set_output_type(self, index: int, dtype: DataType) -> None:
        """Demand a type for an output, under weak typing."""


class INetworkDefinition(Protocol):
    """A parsed model."""

    num_inputs: int
    num_layers: int
    num_outputs: int

    def get_input(self, index: int) -> ITensor:
        """Return an input."""

    def get_layer(self, index: int) -> ILayer:
        """Return a layer."""

    def get_output(self, index: int) -> ITensor:
        """Return an output."""


class ParserError(Protocol):
    """What the parser has against a node."""

    def desc(self) -> str:
        """Return the message."""

    def node(self) -> int:
        """Return the node's place in the model; -1 where none is meant."""

    def node_name(self) -> str:
        """Return the node's name."""

    def node_operator(self) -> str:
        """Return its operation."""


class OnnxParser(Protocol):
    """Reads an ONNX file into a network."""

    num_errors: int

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        """Parse into ``network``, which must outlive the parser's use."""

    def parse_from_file(self, model: str) -> bool:
        """Parse a file and its external data; False: see the errors."""

    def get_error(self, index: int) -> ParserError:
        """Return an error."""

    def get_used_vc_plugin_libraries(self) -> list[str]:
        """Return plugin libraries that a version-compatible plan has to carry."""


class BuilderFlag(Protocol):
    """Switches of a build."""

    FP16: "ClassVar[BuilderFlag]"
    INT8: "ClassVar[BuilderFlag]"
    OBEY_PRECISION_CONSTRAINTS: "ClassVar[BuilderFlag]"
    STRIP_PLAN: "ClassVar[BuilderFlag]"
    TF32: "ClassVar[BuilderFlag]"
    VERSION_COMPATIBLE: "ClassVar[BuilderFlag]"


class NetworkDefinitionCreationFlag(Protocol):
    """Switches of a network, by bit number."""

    EXPLICIT_BATCH: "ClassVar[NetworkDefinitionCreationFlag]"
    STRONGLY_TYPED: "ClassVar[NetworkDefinitionCreationFlag]"

    def __int__(self) -> int:
        """Return the bit's number."""


class MemoryPoolType(Protocol):
    """Pools with a limit."""

    __members__: "ClassVar[Mapping[str, MemoryPoolType]]"


class ProfilingVerbosity(Protocol):
    """What a plan tells of its layers."""

    DETAILED: "ClassVar[ProfilingVerbosity]"


class HardwareCompatibilityLevel(Protocol):
    """On which GPUs a plan runs."""

    __members__: "ClassVar[Mapping[str, HardwareCompatibilityLevel]]"


class ComputeCapability(Protocol):
    """GPUs that TensorRT-RTX builds for."""

    __members__: "ClassVar[Mapping[str, ComputeCapability]]"


class IBuilderConfig(Protocol):
    """How to build."""

    builder_optimization_level: int
    hardware_compatibility_level: HardwareCompatibilityLevel
    int8_calibrator: IInt8Calibrator
    num_compute_capabilities: int
    plugins_to_serialize: list[str]
    profiling_verbosity: ProfilingVerbosity
    progress_monitor: IProgressMonitor

    def set_flag(self, flag: BuilderFlag) -> None:
        """Switch on."""

    def clear_flag(self, flag: BuilderFlag) -> None:
        """Switch off."""

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """Limit a pool to bytes."""

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Add a profile; return its number, or -1 if it was refused."""

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        """Say at which shapes (``opt``) TensorRT calibrates."""

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        """Return a cache from its bytes; none of them give an empty one."""

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:  # noqa: FBT001  # TensorRT's signature
        """Use a cache; False if it was made on another GPU or with another TensorRT."""

    def get_timing_cache(self) -> ITimingCache | None:
        """Return the cache in use."""

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        """Set one of the targets."""


class Builder(Protocol):
    """Makes plans."""

    def __init__(self, logger: ILogger) -> None:
        """Start TensorRT.

        Raises:
            TypeError: it does not start; its logger was told why.
        """

    def create_network(self, flags: int) -> INetworkDefinition:
        """Return an empty network; bit n of ``flags`` is NetworkDefinitionCreationFlag n."""

    def create_builder_config(self) -> IBuilderConfig:
        """Return the default config."""

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Return an empty profile, which the builder owns."""

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        """Return a plan; None if there is none: the logger was told why."""


class IPluginRegistry(Protocol):
    """Knows the plugins."""

    def load_library(self, plugin_path: str) -> object:
        """Register the plugins of a library that exports them."""


class Module(Protocol):
    """TensorRT itself."""

    def get_plugin_registry(self) -> IPluginRegistry:
        """Return the registry."""

    def init_libnvinfer_plugins(self, logger: ILogger, namespace: str) -> bool:
        """Register TensorRT's own plugins."""

    __version__: str
    Builder: type[Builder]
    BuilderFlag: type[BuilderFlag]
    ComputeCapability: type[ComputeCapability]
    DataType: type[DataType]
    HardwareCompatibilityLevel: type[HardwareCompatibilityLevel]
    IInt8EntropyCalibrator2: type[IInt8EntropyCalibrator2]
    IInt8MinMaxCalibrator: type[IInt8MinMaxCalibrator]
    ILogger: type[ILogger]
    IProgressMonitor: type[IProgressMonitor]
    MemoryPoolType: type[MemoryPoolType]
    NetworkDefinitionCreationFlag: type[NetworkDefinitionCreationFlag]
    OnnxParser: type[OnnxParser]
    ProfilingVerbosity: type[ProfilingVerbosity]
