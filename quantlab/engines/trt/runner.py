"""Loading a plan and running it: TensorRT's runtime behind quantlab's GPU runner.

    with opened(library, plan, settings) as engine:      weights on the GPU, once
        with engine.runner() as runner:                  a context, a stream, buffers
            runner.run({...})

Several runners of one engine may be open at a time, each for a thread of its own; they share the
weights.  (TensorRT 8.6 lets one context at a time use an optimization profile, unless the plan was
built with profile sharing.)

TensorRT-RTX compiles kernels when a plan is first run and keeps them in a runtime cache, which lies
beside the plan as ``<precision>.runtime-cache``.  It is read when an engine is opened and written
when it is closed; one made on another GPU, driver or version is made anew.

A plan without weights gets them from the ONNX file that it was built from.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from quantlab import files
from quantlab.cuda.device import Device, OutOfDeviceMemory
from quantlab.engines import artifact
from quantlab.engines.device import GpuRunner
from quantlab.engines.trt import log as logs
from quantlab.engines.trt import network, targets
from quantlab.engines.trt import plan as plans
from quantlab.engines.trt.api_build import ILogger
from quantlab.engines.trt.api_run import (
    ICudaEngine,
    IExecutionContext,
    IRuntimeCache,
    Module,
    Runtime,
)
from quantlab.engines.trt.execution import Loaded, PlanExecutor
from quantlab.engines.trt.inspect import Node, nodes_of
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.plan import Here, Plan
from quantlab.errors import EngineError, EngineUnavailable, OutputError
from quantlab.records import Build

CACHE_BYTES = 1 << 30
"""Largest runtime cache that is read."""

AGAIN = "build it again"

INVALID: Mapping[str, str] = {
    "VERSION_MISMATCH": f"it was built by another version of TensorRT-RTX; {AGAIN} with this one",
    "UNSUPPORTED_CC": "{gpu} with compute capability {capability} is not a GPU that it was built "
    "for; TensorRT-RTX supports compute capability {supported}; "
    f"{AGAIN} for this GPU with --targets, or use 'backend: tensorrt' where it is not supported",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for it; install a newer one (see nvidia-smi)",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it; install a newer TensorRT-RTX",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it; free some (see nvidia-smi), "
    f"or {AGAIN} for smaller shapes",
    "MALFORMED_ENGINE": f"it is no plan of TensorRT-RTX, or a damaged one; {AGAIN}",
    "CUDA_ERROR": "CUDA does not work here; check with nvidia-smi that the driver sees the GPU",
}
"""What TensorRT-RTX's diagnostics mean, by the name of their bit."""

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a plan is run.

    Attributes:
        title: what messages call the plan: its path.
        device_id: which GPU.
        cuda_graph: whether inferences are replayed from a CUDA graph where that can be done.
        runtime_cache: TensorRT-RTX: file of the compiled kernels; None: they are not kept.
        model: ONNX file that the plan was built from, for the names of layers, and for the
            weights of a plan without them; None if it is not at hand.
    """

    title: str
    device_id: int = 0
    cuda_graph: bool = False
    runtime_cache: Path | None = None
    model: Path | None = None

    def nodes(self) -> Mapping[str, Node]:
        """Return the nodes of the ONNX model, as far as it is at hand."""
        return {} if self.model is None else nodes_of(self.model)


@dataclass(frozen=True, slots=True)
class Opened:
    """A plan on the GPU."""

    loaded: Loaded
    settings: Settings

    @contextmanager
    def runner(self) -> Iterator[GpuRunner]:
        """Give a runner with a context, a stream and buffers of its own, for this thread.

        Raises:
            EngineError: the GPU's memory holds no further context.
        """
        device = Device(self.settings.device_id)
        try:
            with device.current():
                executor = PlanExecutor(self.loaded, device)
        except OutOfDeviceMemory as error:
            raise EngineError(f"{self.loaded.title}: {error}; see nvidia-smi") from error
        with GpuRunner(device, executor, cuda_graph=self.settings.cuda_graph) as runner:
            yield runner


@contextmanager
def running(
    library: Library,
    build: Build,
    root: Path,
    *,
    device_id: int,
    cuda_graph: bool,
    keep_kernels: bool = True,
) -> Iterator[GpuRunner]:
    """Check a built plan and its manifest, load it and give a runner.

    Args:
        library: TensorRT.
        build: the plan's record.
        root: the run folder.
        device_id: which GPU.
        cuda_graph: see ``Settings``.
        keep_kernels: TensorRT-RTX: whether the runtime cache is kept beside the plan.

    Raises:
        EngineUnavailable: there is no GPU that can be used, or TensorRT does not start.
        EngineError: files that are missing or changed, a plan for another GPU or TensorRT, or one
            that TensorRT refuses.
    """
    path = artifact.verify(build, root, backend=library.name)
    device = Device(device_id)
    major, minor = divmod(device.architecture, 10)
    here = Here(library.name, library.version, device.name, (major, minor))
    checked = plans.load(path, here)
    settings = Settings(
        title=str(path),
        device_id=device_id,
        cuda_graph=cuda_graph,
        runtime_cache=path.with_suffix(".runtime-cache") if keep_kernels else None,
        model=root / checked.manifest.model,
    )
    with opened(library, checked, settings) as engine, engine.runner() as runner:
        yield runner


@contextmanager
def opened(library: Library, plan: Plan, settings: Settings) -> Iterator[Opened]:
    """Load a plan that was checked against its manifest; its plugins first.

    Raises:
        EngineUnavailable: there is no GPU that can be used, or TensorRT does not start.
        EngineError: TensorRT refuses the plan or a plugin; the message says why.
    """
    device = Device(settings.device_id)
    module, log = cast(Module, library.module), logs.Log()
    logger = logs.make(library.module, log)  # must outlive everything that was given it
    network.load_plugins(library, plan.plugins)
    with device.current():
        runtime = started(library, module, logger, log)
        runtime.engine_host_code_allowed = plan.manifest.options.version_compatible
        if library.capabilities.runtime_cache:
            check_validity(module, runtime, plan.data, settings.title, log, device)
        engine = deserialized(library, runtime, plan.data, settings.title, log)
        if plan.manifest.options.stripped:
            refit(library, engine, logger, plan, settings)
    with _contexts(library, module, engine, settings, device) as context:
        yield Opened(
            Loaded(
                title=settings.title,
                library=library,
                module=module,
                precision=plan.manifest.precision,
                engine=engine,
                log=log,
                context=context,
                nodes=settings.nodes,
            ),
            settings,
        )


def started(library: Library, module: Module, logger: ILogger, log: logs.Log) -> Runtime:
    """Return a Runtime.

    Raises:
        EngineUnavailable: TensorRT does not start.
    """
    try:
        return module.Runtime(logger)
    except (TypeError, RuntimeError) as error:
        raise EngineUnavailable(
            f"{library} does not start: {log.why() or error}; check with nvidia-smi that the "
            "driver works and sees a GPU that it supports"
        ) from error


def check_validity(
    module: Module, runtime: Runtime, plan: bytes, title: str, log: logs.Log, device: Device
) -> None:
    """Ask TensorRT-RTX whether a plan will run here, before it is loaded.

    Raises:
        EngineError: it will not; says why and what to do.
    """
    log.errors.clear()
    validity, bits = runtime.get_engine_validity(plan)
    if validity != module.EngineValidity.INVALID:
        return
    major, minor = divmod(device.architecture, 10)
    known = {"gpu": device.name, "capability": f"{major}.{minor}", "supported": targets.described()}
    members = module.EngineInvalidityDiagnostics.__members__
    told = [
        INVALID.get(name, name).format(**known)
        for name, member in members.items()
        if int(member) & bits
    ]
    why = "; ".join(told) or log.why() or "TensorRT-RTX calls it invalid and does not say why"
    raise EngineError(f"{title} cannot run here: {why}")


def deserialized(
    library: Library, runtime: Runtime, data: bytes, title: str, log: logs.Log
) -> ICudaEngine:
    """Return the engine of a plan.

    Raises:
        EngineError: TensorRT refuses it; what it logged is the message, since it raises nothing.
    """
    log.errors.clear()
    try:
        engine = runtime.deserialize_cuda_engine(data)
    except (RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"{title}: {library} cannot load it: {error}; {AGAIN}") from error
    if engine is None:
        why = log.why() or "it does not say why"
        raise EngineError(
            f"{title}: {library} cannot load it: {why}; {AGAIN} on this GPU with this TensorRT, "
            "and see nvidia-smi whether its memory is full"
        )
    return engine


def refit(
    library: Library, engine: ICudaEngine, logger: ILogger, plan: Plan, settings: Settings
) -> None:
    """Give a plan without weights those of its ONNX file.

    Raises:
        EngineError: the file is missing, is not the one that the plan was built from, or TensorRT
            cannot take its weights.
    """
    model, wanted = settings.model, plan.manifest.model_sha256
    what = f"{settings.title} has no weights, and they"
    if model is None or not model.is_file():
        raise EngineError(
            f"{what} come from {plan.manifest.model}, which is not there: put it beside the "
            "engines' folder, or build with 'strip_weights: false'"
        )
    if files.sha256(model) != wanted:
        raise EngineError(
            f"{what} cannot come from {model}, which changed since: expected SHA-256 "
            f"{wanted[:12]}; {AGAIN}"
        )
    module = cast(Module, library.module)
    refitter = module.Refitter(engine, logger)
    weights = module.OnnxParserRefitter(refitter, logger)  # owns them until they are put in
    if not (weights.refit_from_file(str(model)) and refitter.refit_cuda_engine()):
        raise EngineError(f"{what} cannot be taken from {model}; {AGAIN}")


@contextmanager
def _contexts(
    library: Library, module: Module, engine: ICudaEngine, settings: Settings, device: Device
) -> Iterator[Callable[[], IExecutionContext | None]]:
    """Give what makes contexts; on TensorRT-RTX they share a runtime cache, kept at the end."""
    if not library.capabilities.runtime_cache:
        yield engine.create_execution_context
        return
    with device.current():
        config = engine.create_runtime_config()
        # Else kernels for the shape at hand replace general ones some time after they are needed,
        # and what is measured depends on when.
        config.dynamic_shapes_kernel_specialization_strategy = (
            module.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        cache = config.create_runtime_cache()
        known = _read(cache, settings.runtime_cache)
        config.set_runtime_cache(cache)
    try:
        yield lambda: engine.create_execution_context(config)
    finally:
        with device.current():
            _keep(cache, settings.runtime_cache, known)


def _read(cache: IRuntimeCache, path: Path | None) -> bytes:
    """Read a runtime cache's file, if there is one, and return its bytes."""
    if path is None or not path.is_file():
        return b""
    data = files.read(path, limit=CACHE_BYTES, error=EngineError)
    if not cache.deserialize(data):
        LOGGER.info("%s was made by another GPU, driver or TensorRT-RTX: it is made anew", path)
        return b""
    return data


def _keep(cache: IRuntimeCache, path: Path | None, known: bytes) -> None:
    """Write a runtime cache, if there is anything new in it."""
    if path is None:
        return
    data = bytes(cache.serialize())
    if data and data != known:
        try:
            files.write(path, data)
        except OutputError as error:  # the plan was run all the same; the next time takes longer
            LOGGER.warning("compiled kernels were not kept: %s", error)
