"""What a build is told: the config's keys, checked against this TensorRT, set on its builder.

Where networks are strongly typed (9.1 and later, but for implicit quantization), the types of the
ONNX graph are the types of the arithmetic, and nothing else is said.  Where they are weakly typed
(8.6, and implicit quantization up to 10), flags allow FP16 and INT8 beside FP32, and pinned layers
get their types one by one, which TensorRT is told to obey.

Units: memory in bytes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar

from quantlab import files
from quantlab.engines.base import BuildContext
from quantlab.engines.trt import targets
from quantlab.engines.trt.api_build import (
    BuilderFlag,
    HardwareCompatibilityLevel,
    IBuilderConfig,
    INetworkDefinition,
    MemoryPoolType,
    Module,
    OnnxParser,
)
from quantlab.engines.trt.implicit import FLOATS
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.profiles import Shapes
from quantlab.errors import EngineError
from quantlab.records import Precision

T = TypeVar("T")

Float = Literal["fp32", "fp16"]
Pool = Literal["workspace", "tactic_dram", "tactic_shared_memory"]

TIMING_BYTES = 1 << 30
"""Largest timing cache that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the config says of a build; engines/tensorrt.py describes the keys."""

    quantization: Literal["explicit", "implicit"] = "explicit"
    calibrate_with: Literal["quantlab", "tensorrt"] = "quantlab"
    around: Float = "fp16"
    tf32: bool = False
    pins: Mapping[str, Float] = field(default_factory=dict)
    profiles: Sequence[Mapping[str, Shapes]] = ()
    memory: Mapping[Pool, int] = field(default_factory=dict)
    timing_cache: Path | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    strip_weights: bool = False
    plugins: Sequence[Path] = ()
    device_id: int = 0
    targets: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What to build: a model, for a precision, with a TensorRT that is told ``settings``."""

    library: Library
    settings: Settings
    precision: Precision
    model: Path
    context: BuildContext

    @property
    def implicit(self) -> bool:
        """Whether scales come through a calibrator."""
        return self.precision == "int8" and self.settings.quantization == "implicit"

    @property
    def strong(self) -> bool:
        """Whether the network is strongly typed."""
        return self.library.capabilities.strong and not self.implicit


def check(settings: Settings, library: Library) -> None:
    """Check that a TensorRT has what the config asks for.

    Raises:
        EngineError: it has not; says what has.
    """
    able = library.capabilities
    if settings.quantization == "implicit" and not able.implicit:
        raise EngineError(
            f"'quantization: implicit' needs TensorRT 8.6 to 10, and this is {library}, which "
            "reads no calibration cache; leave the key out: the cache becomes a Q/DQ model"
        )
    if settings.strip_weights and not able.strip_plan:
        raise EngineError(f"'strip_weights' needs TensorRT 10 or later, and this is {library}")
    if settings.calibrate_with == "tensorrt" and settings.quantization != "implicit":
        raise EngineError(
            "'calibrate_with: tensorrt' is for 'quantization: implicit'; a Q/DQ model has its "
            "scales already"
        )
    for pool in settings.memory:
        _pool(library, pool)
    _level(library, settings.hardware_compatible)
    if able.targets:
        targets.require(settings.targets, library.module)


def flags(enum: type[BuilderFlag], order: Order) -> tuple[BuilderFlag, ...]:
    """Return the switches of a build, TF32 apart."""
    settings, wanted = order.settings, []
    if not order.strong:
        half = order.precision == "fp16" or "fp16" in settings.pins.values()
        if order.precision == "int8":
            wanted.append(enum.INT8)
            half = half or settings.around == "fp16"
        if half and order.precision != "fp32":
            wanted.append(enum.FP16)
        if settings.pins and order.precision != "fp32":
            wanted.append(enum.OBEY_PRECISION_CONSTRAINTS)
    if settings.version_compatible:
        wanted.append(enum.VERSION_COMPATIBLE)
    if settings.strip_weights:
        wanted.append(enum.STRIP_PLAN)
    return tuple(wanted)


def configure(order: Order, config: IBuilderConfig, parser: OnnxParser) -> None:
    """Tell the builder what the config says.

    Raises:
        EngineError: TensorRT-RTX refuses a target.
    """
    settings, module = order.settings, order.library.module
    for flag in flags(module.BuilderFlag, order):
        config.set_flag(flag)
    if settings.tf32:
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # else inspectors see names
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    for pool, size in settings.memory.items():
        config.set_memory_pool_limit(_pool(order.library, pool), size)
    if settings.hardware_compatible != "none":
        level = _level(order.library, settings.hardware_compatible)
        config.hardware_compatibility_level = level
    if settings.version_compatible:
        carried = parser.get_used_vc_plugin_libraries()
        config.plugins_to_serialize = [*carried, *map(str, settings.plugins)]
    _set_targets(module, config, settings.targets)


def pin(order: Order, network: INetworkDefinition) -> tuple[str, ...]:
    """Give pinned layers of a weakly typed network their types; return notes.

    A layer goes by its own name, which is its ONNX node's, and by the nodes that its metadata name.
    In a strongly typed network the types are in the graph already.
    """
    module, pins = order.library.module, order.settings.pins
    if order.strong or order.precision == "fp32" or not pins:
        return ()
    types = {"fp32": module.DataType.FLOAT, "fp16": module.DataType.HALF}
    unused = dict.fromkeys(pins)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        names = [layer.name, *re.findall(r"\[ONNX Layer: ([^\]]*)\]", layer.metadata)]
        found = [p for p in pins if any(fnmatchcase(name, p) for name in names)]
        for pattern in found:
            unused.pop(pattern, None)
        outputs = [layer.get_output(output) for output in range(layer.num_outputs)]
        floats = [n for n, out in enumerate(outputs) if out.dtype.name in FLOATS]
        if found and floats:
            layer.precision = types[pins[found[-1]]]  # a later pattern overrides, as in the graph
            for output in floats:
                layer.set_output_type(output, types[pins[found[-1]]])
    if unused:  # a name of the model, or the run would have refused it before
        return (f"pins: TensorRT made no layer of the nodes {', '.join(map(repr, unused))}",)
    return ()


def load_timing(config: IBuilderConfig, path: Path) -> tuple[str, ...]:
    """Use the timing cache of earlier builds, or begin one; return notes.

    Raises:
        EngineError: the file cannot be read.
    """
    notes: tuple[str, ...] = ()
    data = files.read(path, limit=TIMING_BYTES, error=EngineError) if path.exists() else b""
    found = config.create_timing_cache(data)
    if found is None or not config.set_timing_cache(found, ignore_mismatch=False):
        notes = (f"timing cache {path} is of another TensorRT or GPU and was begun anew",)
        found = config.create_timing_cache(b"")
        if found is not None:
            config.set_timing_cache(found, ignore_mismatch=False)
    return notes


def save_timing(config: IBuilderConfig, path: Path) -> None:
    """Keep the times that this build measured for the next one.

    Raises:
        OutputError: the file cannot be written.
    """
    found = config.get_timing_cache()
    if found is not None:
        files.write(path, bytes(memoryview(found.serialize())))


def _pool(library: Library, name: str) -> MemoryPoolType:
    return _member(library, f"memory: {name}", name, library.module.MemoryPoolType.__members__)


def _level(library: Library, name: str) -> HardwareCompatibilityLevel:
    levels = library.module.HardwareCompatibilityLevel.__members__
    return _member(library, f"hardware_compatible: {name}", name, levels)


def _member(library: Library, key: str, name: str, members: Mapping[str, T]) -> T:
    """Return the member of one of TensorRT's enums that a value of the config names."""
    if name.upper() not in members:
        has = ", ".join(member.lower() for member in members)
        raise EngineError(f"'{key}': {library} has no such thing; it has {has}")
    return members[name.upper()]


def _set_targets(module: Module, config: IBuilderConfig, names: Sequence[str]) -> None:
    if not names:
        return
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        wanted = module.ComputeCapability.__members__[name.upper()]
        if not config.set_compute_capability(wanted, index):
            raise EngineError(f"TensorRT-RTX {module.__version__} refuses the target {name!r}")
