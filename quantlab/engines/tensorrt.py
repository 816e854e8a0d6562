"""TensorRT 8.6 to 11, and TensorRT-RTX: plans built, stored with their manifest, and opened.

``backend: tensorrt`` is whichever TensorRT is installed; ``available`` says which.  FP32 and FP16
engines are built from the FP32 and the FP16 graph on every version.  INT8 is a Q/DQ model, or up to
TensorRT 10 the FP32 graph with scales from the calibration cache (``quantization: implicit``).

TensorRT needs its GPU to build as well as to run.  TensorRT-RTX builds on any machine, for the GPUs
that ``targets`` names.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ByteSize, Field, NonNegativeInt

from quantlab import __version__, files
from quantlab.cuda.device import Device
from quantlab.engines import artifact
from quantlab.engines.base import NOTHING, BuildContext, Recipe, Runner
from quantlab.engines.trt import builder, plan, runner, targets
from quantlab.engines.trt.library import load
from quantlab.engines.trt.options import Float, Order, Pool, Settings
from quantlab.engines.trt.profiles import Shapes
from quantlab.errors import EngineUnavailable
from quantlab.files import sha256
from quantlab.records import Build, Precision

Level = Annotated[int, Field(ge=0, le=5)]


@dataclass(frozen=True, slots=True)
class Common:
    """The keys of both.

    Attributes:
        around: type of what INT8 leaves in floating point.
        tf32: whether FP32 may be computed in TF32, which rounds to 10 bits behind the point.
        pins: types of nodes that are kept from a lower one, by pattern of their names.
        profiles: shapes to take, by input: one mapping a profile.  By default those of the
            calibration samples at every batch size of the config.
        memory: limits of the builder's memory pools, such as ``{workspace: 4GiB}``.
        optimization_level: 0 builds fastest, 5 searches longest; TensorRT's own is 3.
        strip_weights: whether the weights are left out of the plan.
        plugins: libraries of custom layers.
        cuda_graph: whether inferences are replayed from a CUDA graph.
        device_id: the GPU, as CUDA numbers them.
    """

    around: Float = "fp16"
    tf32: bool = False
    pins: Mapping[str, Float] = field(default_factory=dict)
    profiles: tuple[Mapping[str, Shapes], ...] = ()
    memory: Mapping[Pool, ByteSize] = field(default_factory=dict)
    optimization_level: Level | None = None
    strip_weights: bool = False
    plugins: tuple[Path, ...] = ()
    cuda_graph: bool = False
    device_id: NonNegativeInt = 0

    @property
    def settings(self) -> Settings:
        """What the builder is told of them."""
        return Settings(
            around=self.around,
            tf32=self.tf32,
            pins=self.pins,
            profiles=self.profiles,
            memory=self.memory,
            optimization_level=self.optimization_level,
            strip_weights=self.strip_weights,
            plugins=self.plugins,
            device_id=self.device_id,
        )


@dataclass(frozen=True, slots=True)
class TensorRT(Common):
    """TensorRT 8.6 to 11.

    Attributes:
        quantization: "explicit" builds INT8 from a Q/DQ model; "implicit", on 8.6 to 10, from the
            calibration cache.
        calibrate_with: who chooses the scales of implicit quantization: "tensorrt" calibrates
            itself on the calibration samples.
        timing_cache: file that keeps how long kernels took, for the next build; by default
            ``engines/timing.cache`` in the run folder.
        version_compatible: whether newer TensorRTs of the same major may open the plan.
        hardware_compatible: on which other GPUs the plan may run.
    """

    quantization: Literal["explicit", "implicit"] = "explicit"
    calibrate_with: Literal["quantlab", "tensorrt"] = "quantlab"
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: plan.HardwareCompatible = "none"

    name: ClassVar[str] = "tensorrt"
    policy: ClassVar[str] = "tensorrt"

    @property
    def recipe(self) -> Recipe:
        """What models the installed TensorRT wants to be given.

        Where Q/DQ networks are weakly typed, which is 8.6, INT8 stands in an FP32 model, and a
        flag allows FP16 for the rest.  Without a TensorRT, calibration can be done all the same,
        and the models of newer ones are meant.
        """
        try:
            strong = load("tensorrt").capabilities.strong
        except EngineUnavailable:
            strong = True
        return Recipe(
            explicit=self.quantization == "explicit",
            around=self.around if strong else "fp32",
            pins=self.pins,
            ranges=True,
        )

    def available(self) -> str:
        """Return TensorRT's version and the GPU; see ``Engine.available``."""
        library, device = load("tensorrt"), Device(self.device_id)
        return f"{library} on {device.name} (compute capability {_capability(device)})"

    def runnable(self) -> None:
        """Check what ``available`` does; see ``Engine.runnable``."""
        self.available()

    def build(
        self, model: Path, precision: Precision, folder: Path, context: BuildContext = NOTHING
    ) -> Build:
        """Build ``<precision>.plan`` and its manifest; see ``Engine.build``."""
        settings = replace(
            self.settings,
            quantization=self.quantization,
            calibrate_with=self.calibrate_with,
            timing_cache=self.timing_cache or folder / "timing.cache",
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
        )
        return _build(Order(load("tensorrt"), settings, precision, model, context), folder)

    @contextmanager
    def open(self, build: Build, root: Path) -> Iterator[Runner]:
        """Check and load a plan; see ``Engine.open``."""
        running = runner.running(
            load("tensorrt"), build, root, device_id=self.device_id, cuda_graph=self.cuda_graph
        )
        with _opened(running, build) as opened:
            yield opened


@dataclass(frozen=True, slots=True)
class TensorRTRTX(Common):
    """TensorRT-RTX.

    Attributes:
        targets: compute capabilities that plans are built for, such as sm86; by default sm80, sm86,
            sm89, sm120, sm121 and later ones.
        runtime_cache: whether kernels that were compiled when a plan was opened are kept.
    """

    targets: tuple[str, ...] = ()
    runtime_cache: bool = True

    name: ClassVar[str] = "tensorrt-rtx"
    policy: ClassVar[str] = "tensorrt"

    @property
    def recipe(self) -> Recipe:
        """What models it wants to be given."""
        return Recipe(around=self.around, pins=self.pins, ranges=True)

    def available(self) -> str:
        """Return TensorRT-RTX's version; building needs no GPU.  See ``Engine.available``."""
        return f"{load('tensorrt-rtx')} for {_covered(self.targets)}"

    def runnable(self) -> None:
        """Check that there is a GPU; see ``Engine.runnable``."""
        Device(self.device_id)

    def build(
        self, model: Path, precision: Precision, folder: Path, context: BuildContext = NOTHING
    ) -> Build:
        """Build ``<precision>.plan`` and its manifest; see ``Engine.build``."""
        settings = replace(self.settings, targets=self.targets)
        return _build(Order(load("tensorrt-rtx"), settings, precision, model, context), folder)

    @contextmanager
    def open(self, build: Build, root: Path) -> Iterator[Runner]:
        """Check and load a plan, which needs a GPU; see ``Engine.open``."""
        running = runner.running(
            load("tensorrt-rtx"),
            build,
            root,
            device_id=self.device_id,
            cuda_graph=self.cuda_graph,
            keep_kernels=self.runtime_cache,
        )
        with _opened(running, build) as opened:
            yield opened


@contextmanager
def _opened(running: AbstractContextManager[Runner], build: Build) -> Iterator[Runner]:
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(running)
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{build.path} runs on an NVIDIA GPU only: {error}") from error
        yield opened


def _build(order: Order, folder: Path) -> Build:
    """Build a plan with its manifest, whole or not at all."""
    artifact.source(order.model)
    main = f"{order.precision}.plan"
    done: list[tuple[builder.Made, plan.Manifest]] = []

    def write(target: Path) -> None:
        made = builder.build(order)
        done.append((made, plan.save(target / main, made.plan, _manifest(order, made))))
        if made.calibration:  # beside the plan, to be compared with quantlab's
            files.write(target / f"{order.precision}.calibration.cache", made.calibration)

    built = artifact.build(
        folder, order.precision, backend=order.library.name, device="", main=main, write=write
    )
    made, manifest = done[0]
    device = made.gpu or f"GPUs {_covered(order.settings.targets)}"
    return replace(built, device=device, notes=made.notes, facts=plan.facts(manifest))


def _manifest(order: Order, made: builder.Made) -> plan.Manifest:
    settings, cache = order.settings, order.context.cache
    quantization = settings.quantization if order.precision == "int8" else "none"
    cached = cache is not None and order.precision == "int8"
    return plan.Manifest(
        quantlab=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        package=order.library.name,
        version=order.library.version,
        gpu=made.gpu,
        compute_capability=made.compute_capability,
        targets=tuple(settings.targets),
        precision=order.precision,
        quantization=quantization,
        model=order.model.name,
        model_sha256=sha256(order.model),
        profiles=made.profiles,
        cache_sha256=sha256(cache) if cache is not None and cached else "",
        plugins=tuple(
            plan.Plugin(path=str(path.resolve()), sha256=sha256(path)) for path in settings.plugins
        ),
        options=plan.Options(
            strongly_typed=order.strong,
            around=settings.around,
            tf32=settings.tf32,
            version_compatible=settings.version_compatible,
            hardware_compatible=settings.hardware_compatible,
            stripped=settings.strip_weights,
            optimization_level=settings.optimization_level,
            memory={pool: int(size) for pool, size in settings.memory.items()},
            timing_cache="" if settings.timing_cache is None else str(settings.timing_cache),
            pins=settings.pins,
        ),
    )


def _covered(names: Sequence[str]) -> str:
    return ", ".join(names) if names else f"{', '.join(targets.DEFAULT)} and later"


def _capability(device: Device) -> str:
    return "{}.{}".format(*divmod(device.architecture, 10))
