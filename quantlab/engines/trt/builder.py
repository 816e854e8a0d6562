"""From an ONNX file to a plan: the build, its calibration, and why it failed.

TensorRT finds a plan by trying kernels on the GPU; TensorRT-RTX leaves that to the machine that
opens the plan, and builds without a GPU.  The build has a thread of its own, so that Ctrl-C is
heard, and all that it makes on the GPU is made and dropped there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantlab import cache
from quantlab.cuda.device import Device
from quantlab.engines.trt import implicit, log, monitor, options, profiles
from quantlab.engines.trt.api_build import (
    Builder,
    IBuilderConfig,
    IHostMemory,
    IInt8Calibrator,
)
from quantlab.engines.trt.callbacks import deprecated
from quantlab.engines.trt.network import Parsed, load_plugins, parse, start
from quantlab.engines.trt.options import Order
from quantlab.errors import EngineError

REMEDIES: dict[str, str] = {
    r"workspace limit|workspace memory greater|increase the workspace": (
        "allow it more: 'memory: {workspace: 4GiB}'"
    ),
    r"[Oo]ut ?[Oo]f ?[Mm]emory|cudaErrorMemoryAllocation|MEM_ALLOC|Requested amount of GPU mem": (
        "the GPU's memory is full: see nvidia-smi for who else uses it, lower 'memory: "
        "{workspace: ...}' or the largest shapes of 'profiles'"
    ),
    r"violate shape constraints|has no solution|optimization profile": (
        "the model does not take every shape of the optimization profile: change "
        "'profiles', or the batch sizes of the config if it has none"
    ),
    r"nvinfer_lean": (
        "'version_compatible' needs TensorRT's lean runtime of the same version: install "
        "it, or leave the key out"
    ),
    r"not supported by this TensorRT|Unsupported SM|SM \d+ is not supported": (
        "use a TensorRT whose release notes name this GPU"
    ),
    r"find any implementation": (
        "allow more workspace or a higher 'optimization_level', or pin the node to fp32"
    ),
}
"""What to do, by what TensorRT's errors match; the first that does."""

OTHERWISE = f"the logger {log.NAME!r} has all that it said"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A plan, and what there is to know of it.

    Attributes:
        plan: its bytes.
        gpu, compute_capability: where it was built; "" and None without a GPU.
        profiles: its optimization profiles.
        calibration: the cache that TensorRT made; empty where it made none.
        notes: what a reader must know.
    """

    plan: bytes
    gpu: str
    compute_capability: tuple[int, int] | None
    profiles: tuple[profiles.Profile, ...]
    calibration: bytes
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Calibration:
    """What gives an implicitly quantized build its scales.

    Attributes:
        calibrator: what TensorRT asks; kept as long as the build.
        source: what that asks.
        profile: at which shapes; None where every axis is fixed.
        notes: what a reader must know.
    """

    calibrator: IInt8Calibrator
    source: implicit.Served | implicit.Fed
    profile: profiles.Profile | None
    notes: tuple[str, ...] = ()

    @property
    def cache(self) -> bytes:
        """The cache that TensorRT made; empty where it was given one."""
        return self.source.cache if isinstance(self.source, implicit.Fed) else b""


def build(order: Order) -> Made:
    """Build a plan; Ctrl-C ends it.

    Raises:
        EngineError: TensorRT refuses the model, its settings or the machine.
        ConfigError: a target that this TensorRT-RTX does not know.
        CacheError: the calibration cache lacks a tensor, or TensorRT refused it.
        CalibrationError: TensorRT did not calibrate on all that it was given.
    """
    options.check(order.settings, order.library)
    progress = order.context.progress
    title = f"{order.library}: {order.precision} from {order.model.name}"
    with progress.track(title, total=monitor.PERCENT, unit="%") as advance:
        steps = monitor.Steps(advance)

        def cancel() -> None:
            steps.cancelled.set()
            able = order.library.capabilities.monitor
            how = "stops at its next step" if able else "cannot be stopped and goes on to its end"
            progress.note(f"the build {how}; no plan is written. Ctrl-C again leaves at once")

        return monitor.interruptible(lambda: _on_device(order, steps), cancel)


def _on_device(order: Order, steps: monitor.Steps) -> Made:
    if order.library.capabilities.targets:
        return build_on(order, steps, None)
    device = Device(order.settings.device_id)
    with device.current():
        return build_on(order, steps, device)


def build_on(order: Order, steps: monitor.Steps, device: Device | None) -> Made:
    """Build on this thread, on a GPU whose context is current, or without; Raises as ``build``."""
    module, able = order.library.module, order.library.capabilities
    told = log.Log()
    logger = log.make(module, told)
    builder = start(order.library, logger, told)
    load_plugins(order.library, order.settings.plugins)
    parsed = parse(order.library, builder, logger, order.model, strong=order.strong)
    config = builder.create_builder_config()
    with deprecated():
        options.configure(order, config, parsed.parser)
        notes = options.pin(order, parsed.network)
    chosen = profiles.chosen(parsed.inputs, order.settings.profiles, order.context.shapes)
    for profile in chosen:
        profiles.add(builder, config, profile)
    calibration = _calibration(order, parsed, chosen, device) if order.implicit else None
    if calibration is not None:
        _attach(calibration, builder, config)
        notes += calibration.notes
    if able.monitor:
        watching = monitor.make(module, steps)
        config.progress_monitor = watching
    timing = order.settings.timing_cache if able.timing_cache else None
    if timing is not None:
        notes += options.load_timing(config, timing)
    plan = builder.build_serialized_network(parsed.network, config)
    steps.kept.release()
    if calibration is not None:
        notes += calibration.source.check(order.library, told)
    data = _bytes(plan, order, told)
    if timing is not None:
        options.save_timing(config, timing)
    return Made(
        plan=data,
        gpu="" if device is None else device.name,
        compute_capability=None if device is None else divmod(device.architecture, 10),
        profiles=chosen,
        calibration=b"" if calibration is None else calibration.cache,
        notes=(*notes, *told.notes()),
    )


def _bytes(plan: IHostMemory | None, order: Order, told: log.Log) -> bytes:
    if plan is not None:
        return bytes(memoryview(plan))
    why = told.why() or "TensorRT does not say why"
    found = (remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, why))
    remedy = next(found, OTHERWISE)
    if order.settings.strip_weights and order.library.capabilities.targets:
        remedy = (
            "'strip_weights' is what TensorRT-RTX 1.7 fails at without a GPU: leave it out, or "
            "build on the GPU"
        )
    raise EngineError(
        f"{order.library} cannot build {order.precision} from {order.model.name}: {why}; {remedy}"
    )


def _calibration(
    order: Order, parsed: Parsed, chosen: Sequence[profiles.Profile], device: Device | None
) -> _Calibration:
    if order.settings.calibrate_with == "tensorrt":
        assert device is not None  # noqa: S101  what builds without a GPU has no calibrators
        return by_tensorrt(order, parsed, implicit.DeviceMemory(device))
    return by_cache(order, parsed, chosen)


def by_cache(order: Order, parsed: Parsed, chosen: Sequence[profiles.Profile]) -> _Calibration:
    """Return a calibrator that serves the run's cache.

    Raises:
        EngineError: there is no cache.
        CacheError: it is not one, or lacks a tensor of the network.
    """
    path, library = order.context.cache, order.library
    if path is None:
        raise EngineError(
            "'quantization: implicit' needs a calibration cache, and there is none; calibrate first"
        )
    stored = cache.read(path)
    unnamed = implicit.require_scales(stored, parsed.network, order.model, str(path))
    served = implicit.Served(implicit.served(stored, library.version))
    made = implicit.calibrator(library.module, implicit.algorithm(stored), served)
    notes: tuple[str, ...] = ()
    if unnamed:
        text = (
            f"TensorRT's parser made {len(unnamed)} tensors that the model does not have, so the "
            f"cache has no scale for them: {cache.some(unnamed)}"
        )
        notes = (text,)
    return _Calibration(made, served, chosen[0] if chosen else None, notes)


def by_tensorrt(order: Order, parsed: Parsed, memory: implicit.Memory) -> _Calibration:
    """Return a calibrator that lets TensorRT calibrate on the run's samples, put into ``memory``.

    Its algorithm is that of the run's cache, so that the two can be compared.

    Raises:
        EngineError: there are no samples, or they do not fit the model.
    """
    batches, path = order.context.batches, order.context.cache
    if batches is None:
        raise EngineError(
            "'calibrate_with: tensorrt' needs the calibration samples, and there are none"
        )
    shapes = implicit.first(batches, parsed.inputs)
    fed = implicit.Fed(batches, implicit.inputs(parsed.network, shapes), memory)
    chosen = implicit.ENTROPY if path is None else implicit.algorithm(cache.read(path))
    made = implicit.calibrator(order.library.module, chosen, fed)
    is_open = {name: shapes[name] for name, shape in parsed.inputs.items() if -1 in shape}
    return _Calibration(made, fed, profiles.fixed(is_open) if is_open else None)


def _attach(calibration: _Calibration, builder: Builder, config: IBuilderConfig) -> None:
    with deprecated():
        config.int8_calibrator = calibration.calibrator
        if calibration.profile is not None:
            wanted = profiles.fill(builder, calibration.profile)
            if not config.set_calibration_profile(wanted):
                raise EngineError("TensorRT refuses the calibration profile; calibrate again")
