"""A context of a loaded plan as an Executor: profiles, shapes, addresses, enqueueing.

One engine can have several contexts, each with its own state and memory for what lies between
layers; weights and kernels are shared.  Where a plan has several optimization profiles, the first
that covers the inputs is used, so the same inputs always get the same kernels.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from quantlab.cuda.device import Device, OutOfDeviceMemory
from quantlab.engines.base import Array
from quantlab.engines.device import Fit, Found, Shape
from quantlab.engines.layers import ran
from quantlab.engines.signature import supported
from quantlab.engines.trt import outputs as data_dependent
from quantlab.engines.trt.api_build import Dims
from quantlab.engines.trt.api_run import ICudaEngine, IExecutionContext, IProfiler, Module
from quantlab.engines.trt.inspect import Node, inspect
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.log import Log
from quantlab.errors import EngineError
from quantlab.records import EngineInfo, Layer, Precision, TensorSpec

DTYPES: Mapping[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""NumPy's name by TensorRT's; other types cannot be fed as arrays."""

PROFILED_RUNS = 8
"""Inferences that a layer's time is the mean of, after one that is not counted."""

NewContext = Callable[[], IExecutionContext | None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A deserialized plan.

    Attributes:
        title: what messages call it: the plan's path.
        library: TensorRT.
        module: its module, as running uses it.
        precision: what the plan was built for.
        engine: the plan on the device.
        log: what TensorRT says.
        context: makes an execution context.
        nodes: returns the nodes of the ONNX model, for the names of layers.
    """

    title: str
    library: Library
    module: Module
    precision: Precision
    engine: ICudaEngine
    log: Log
    context: NewContext
    nodes: Callable[[], Mapping[str, Node]]

    def ports(self, way: str) -> tuple[TensorSpec, ...]:
        """Return the inputs ("INPUT") or outputs ("OUTPUT").

        Raises:
            EngineError: of a type that NumPy does not have, or one that must lie on the host.
        """
        found = []
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            if self.engine.get_tensor_mode(name).name != way:
                continue
            if self.engine.get_tensor_location(name).name == "HOST":
                raise EngineError(
                    f"{self.title}: {name!r} is a shape tensor, whose values TensorRT reads on the "
                    "host; only tensors on the device are run: make it a constant of the model"
                )
            dtype = self.engine.get_tensor_dtype(name).name
            axes = tuple(a if a >= 0 else None for a in plain(self.engine.get_tensor_shape(name)))
            found.append(TensorSpec(name, DTYPES.get(dtype, dtype), axes))
        return supported(found, str(self.library))


class PlanExecutor:
    """An Executor (quantlab.engines.device) over a context of its own.

    Raises:
        EngineError: the device's memory holds no further context.
    """

    def __init__(self, loaded: Loaded, device: Device) -> None:
        self._loaded, self._device = loaded, device
        self._inputs, self._outputs = loaded.ports("INPUT"), loaded.ports("OUTPUT")
        with _translated(loaded, "cannot make an execution context"):
            made = loaded.context()
        if made is None:
            raise EngineError(
                f"{loaded.title}: {loaded.library} cannot make an execution context: "
                f"{loaded.log.why() or 'it does not say why'}; is the GPU's memory full? "
                "See nvidia-smi"
            )
        self._context: IExecutionContext | None = made
        self._largest: dict[int, dict[str, Shape]] = {}
        self._late: tuple[str, ...] = ()
        self._found = data_dependent.Outputs(device)
        self._allocator = data_dependent.make(loaded.module, self._found)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives."""
        return self._outputs

    def fit(self, shapes: Mapping[str, Shape]) -> Fit:
        """Choose a profile and set the shapes; see ``Executor.fit``."""
        profile = self._profile(shapes)
        with _translated(self._loaded, "cannot take these inputs"):
            self._select(profile)
            if profile not in self._largest:
                self._largest[profile] = self._at_most(profile)
            known = self._set(shapes)
        late = tuple(name for name, shape in known.items() if shape is None)
        for name in late:
            self._require(self._here.set_output_allocator(name, self._allocator), name)
        self._late = late
        return Fit(known, self._largest[profile])

    def enqueue(self, addresses: Mapping[str, int]) -> Mapping[str, Found]:
        """Queue one inference; see ``Executor.enqueue``."""
        with _translated(self._loaded, "could not run"):
            for name, address in addresses.items():
                self._require(self._here.set_tensor_address(name, address), name)
            done = self._here.execute_async_v3(self._device.stream.handle)
        self._release()
        if not done:
            why = self._loaded.log.why() or "TensorRT does not say why"
            raise EngineError(f"{self._loaded.title}: could not run: {why}")
        return {name: self._found.found[name] for name in self._late}

    def capturable(self) -> str:
        """Say why it cannot be captured; see ``Executor.capturable``."""
        library = self._loaded.library
        asked = library.capabilities.generation == "rtx"  # the others find out when it fails
        if not asked or self._here.is_stream_capturable(self._device.stream.handle):
            return ""
        return f"{library} cannot capture this plan at these shapes"

    def describe(self, inputs: Mapping[str, Array], addresses: Mapping[str, int]) -> EngineInfo:
        """Ask the engine inspector, and time layers in a second context; see ``Executor``."""
        loaded = self._loaded
        with _translated(loaded, "cannot be inspected"):
            inspector = loaded.engine.create_engine_inspector()
            inspector.execution_context = self._here
            text = inspector.get_engine_information(loaded.module.LayerInformationFormat.JSON)
        found = inspect(text, loaded.precision, loaded.nodes())
        times, notes = self._times({n: a.shape for n, a in inputs.items()}, addresses)
        layers = timed(found.layers, names_of(text), times)
        return EngineInfo(
            backend=str(loaded.library),
            device=self._device.name,
            threads=1,
            precision=loaded.precision,
            ran=ran(layers),
            layers=layers,
            notes=(*found.notes, *notes),
            fusions=found.fusions,
        )

    def close(self) -> None:
        """Drop the context, before the engine goes."""
        self._context = None
        self._found.close()

    @property
    def _here(self) -> IExecutionContext:
        assert self._context is not None  # noqa: S101  the runner uses nothing that it closed
        return self._context

    def _profile(self, shapes: Mapping[str, Shape]) -> int:
        """Return the first profile that covers the shapes.

        Raises:
            EngineError: none does; names the input, its shape and the profiles.
        """
        engine, open_inputs = self._loaded.engine, [s for s in self._inputs if None in s.shape]
        ranges = [
            {spec.name: limits(engine, spec.name, index) for spec in open_inputs}
            for index in range(engine.num_optimization_profiles)
        ]
        for index, profile in enumerate(ranges):
            if all(covers(profile[spec.name], shapes[spec.name]) for spec in open_inputs):
                return index
        alone = [
            spec.name
            for spec in open_inputs
            if not any(covers(profile[spec.name], shapes[spec.name]) for profile in ranges)
        ]
        raise EngineError(uncovered(self._loaded.title, alone, shapes, ranges))

    def _select(self, profile: int) -> None:
        if self._here.active_optimization_profile == profile:
            return
        chosen = self._here.set_optimization_profile_async(profile, self._device.stream.handle)
        self._require(chosen, f"optimization profile {profile}")

    def _at_most(self, profile: int) -> dict[str, Shape]:
        """Return the largest shapes of a profile; of outputs, those of the largest inputs."""
        largest = {
            spec.name: (
                limits(self._loaded.engine, spec.name, profile)[1]
                if None in spec.shape
                else tuple(int(axis) for axis in spec.shape if axis is not None)
            )
            for spec in self._inputs
        }
        known = self._set(largest)
        return largest | {name: shape for name, shape in known.items() if shape is not None}

    def _set(self, shapes: Mapping[str, Shape]) -> dict[str, Shape | None]:
        """Set the inputs' shapes and return the outputs'."""
        for spec in self._inputs:
            if None in spec.shape:
                self._require(self._here.set_input_shape(spec.name, shapes[spec.name]), spec.name)
        missing = self._here.infer_shapes()
        if missing:
            raise EngineError(
                f"{self._loaded.title}: TensorRT does not know the shape of {', '.join(missing)}"
            )
        found: dict[str, Shape | None] = {}
        for spec in self._outputs:
            shape = plain(self._here.get_tensor_shape(spec.name))
            found[spec.name] = None if any(axis < 0 for axis in shape) else shape
        return found

    def _times(
        self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Return each layer's ms, by TensorRT's name of it, and why there are none if so."""
        times: dict[str, float] = {}
        try:
            twin = PlanExecutor(self._loaded, self._device)
        except EngineError as error:
            return {}, (f"layers were not timed: {error}",)
        try:
            twin.fit(shapes)
            twin.enqueue(addresses)
            profiler = _profiler(self._loaded.module, times)
            twin._here.profiler = profiler
            for _ in range(PROFILED_RUNS):
                twin.enqueue(addresses)
            self._device.stream.synchronize()
        except (EngineError, OutOfDeviceMemory) as error:
            return {}, (f"layers were not timed: {error}",)
        finally:
            self._device.stream.synchronize()
            twin.close()
        return {name: ms / PROFILED_RUNS for name, ms in times.items()}, ()

    def _release(self) -> None:
        """Raise what an output's allocation raised while TensorRT asked for it."""
        error, self._found.kept.error = self._found.kept.error, None
        if error is not None:
            raise error

    def _require(self, done: bool, what: str) -> None:  # noqa: FBT001  what TensorRT returned
        if not done:
            why = self._loaded.log.why() or "it does not say why"
            raise EngineError(f"{self._loaded.title}: TensorRT refuses {what}: {why}")


def covers(limits: tuple[Shape, Shape], shape: Shape) -> bool:
    """Return whether a shape lies between the least and the largest of a profile."""
    least, most = limits
    return len(shape) == len(most) and all(
        low <= axis <= high for low, axis, high in zip(least, shape, most, strict=True)
    )


def limits(engine: ICudaEngine, name: str, profile: int) -> tuple[Shape, Shape]:
    """Return the least and the largest shape of an input in a profile."""
    least, _, most = engine.get_tensor_profile_shape(name, profile)
    return plain(least), plain(most)


def uncovered(
    title: str,
    names: list[str],
    shapes: Mapping[str, Shape],
    profiles: list[dict[str, tuple[Shape, Shape]]],
) -> str:
    """Return the message for shapes that no profile covers; ``names`` fit none by themselves."""
    told = names or sorted(profiles[0])
    listed = "; ".join(
        f"profile {index} takes "
        + ", ".join(f"{n} {list(profile[n][0])} to {list(profile[n][1])}" for n in told)
        for index, profile in enumerate(profiles)
    )
    got = ", ".join(f"{name!r} has shape {list(shapes[name])}" for name in told)
    together = "" if names else " together"
    return (
        f"{title}: input {got}, which no optimization profile covers{together}: {listed}; run "
        "what a profile covers, or build again with 'profiles:' that cover it"
    )


def timed(
    layers: tuple[Layer, ...], names: list[str], times: Mapping[str, float]
) -> tuple[Layer, ...]:
    """Return layers with their times; ``names`` are TensorRT's own, in the same order."""
    return tuple(
        replace(layer, ms=times.get(name, layer.ms))
        for layer, name in zip(layers, names, strict=True)
    )


def names_of(text: str) -> list[str]:
    """Return the layers' names in the engine inspector's JSON, which ``inspect`` has read."""
    listed = json.loads(text)["Layers"]
    return [str(layer["Name"]) if isinstance(layer, dict) else str(layer) for layer in listed]


def plain(dims: Dims) -> Shape:
    """Return a shape of TensorRT's as a tuple."""
    return tuple(dims[axis] for axis in range(len(dims)))


def _profiler(module: Module, times: dict[str, float]) -> IProfiler:
    base = module.IProfiler

    class Profiler(base):  # type: ignore[misc,valid-type]  # the base exists once TensorRT is imported
        def __init__(self) -> None:
            base.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name] = times.get(layer_name, 0.0) + ms

    made: IProfiler = Profiler()
    return made


@contextmanager
def _translated(loaded: Loaded, doing: str) -> Iterator[None]:
    """Turn what TensorRT's bindings raise into an EngineError; its older errors are forgotten."""
    loaded.log.errors.clear()
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise EngineError(
            f"{loaded.title}: {doing}: {loaded.log.why() or text or type(error).__name__}"
        ) from error
