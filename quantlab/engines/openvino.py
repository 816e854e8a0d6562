"""OpenVINO on the CPU: the default engine, with real INT8 kernels on x86-64 and ARM64.

The engine is OpenVINO's own format: ``<precision>.xml`` holds the graph and ``<precision>.bin`` the
weights, 1 byte each in INT8 and 2 in FP16.  It is read and compiled on the machine that runs it.

Precision of the arithmetic is stated, never left to OpenVINO, which would silently compute FP32
models in BF16 on CPUs that have it: FP32 runs in f32, FP16 in f16, and INT8 has f32 around its
integer kernels, so that its difference from FP32 is quantization's alone.  A CPU without FP16
arithmetic runs FP16 weights in f32: left to choose, OpenVINO would take BF16 there, whose 8 bits
say nothing about FP16's 11.  What really ran is read from the compiled model.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PositiveInt

from quantlab.engines import artifact
from quantlab.engines.base import NOTHING, PLAIN, Array, BuildContext, Recipe, Runner
from quantlab.engines.layers import ran, saturation, shortfall
from quantlab.engines.signature import fitted, supported
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.records import Build, EngineInfo, Layer, Precision, TensorSpec

DEVICE = "CPU"

WEIGHTED = frozenset(
    {
        *("Convolution", "GroupConvolution", "Deconvolution", "DeformableConvolution"),
        *("FullyConnected", "MatMul", "ScaledDotProductAttention"),
        *("RNNCell", "RNNSeq"),  # recurrent layers are matrix products
    }
)
"""The CPU plug-in's layer types that are convolutions or matrix products."""

STATIC_SHAPES = 8
"""Input shapes that a model is compiled for: batch sizes of the evaluation and the benchmark."""

PROFILED_RUNS = 8
"""Inferences that a layer's time is the mean of."""

NOISE = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully", "Summary:")
"""Beginnings of lines in OpenVINO's messages that speak of its sources, not of the model."""


@dataclass(frozen=True, slots=True)
class OpenVino:
    """Runs on the CPU.

    Attributes:
        threads: of one inference; OpenVINO's choice, usually the physical cores, if not given.
    """

    threads: PositiveInt | None = None

    name: ClassVar[str] = "openvino"
    policy: ClassVar[str] = "tensorrt"
    recipe: ClassVar[Recipe] = PLAIN

    def available(self) -> str:
        """Return version and CPU; see ``Engine.available``."""
        core = _library().Core()
        return f"{_version()} on {_device(core)}"

    def runnable(self) -> None:
        """Check what ``available`` does; see ``Engine.runnable``."""
        self.available()

    def build(
        self,
        model: Path,
        precision: Precision,
        folder: Path,
        context: BuildContext = NOTHING,  # noqa: ARG002  # the Engine protocol's signature
    ) -> Build:
        """Convert to ``<precision>.xml`` and ``.bin``; see ``Engine.build``."""
        ov = _library()
        main = f"{precision}.xml"

        def write(target: Path) -> None:
            with _translated(f"OpenVINO cannot build {precision} from {model.name}"):
                core = ov.Core()
                _save(ov, core.read_model(model), target / main)
                graph = core.read_model(target / main)
                supported(_specs((*graph.inputs, *graph.outputs)), "OpenVINO")
                core.compile_model(graph, DEVICE, self._config(core, precision))

        artifact.source(model)
        return artifact.build(
            folder, precision, backend=self.name, device=DEVICE, main=main, write=write
        )

    @contextmanager
    def open(self, build: Build, root: Path) -> Iterator[Runner]:
        """Verify and load; see ``Engine.open``."""
        path = artifact.verify(build, root, backend=self.name)
        with _translated(f"OpenVINO cannot load {path}"):
            core = _library().Core()
            graph = core.read_model(path)
            config = self._config(core, build.precision)
        yield _Runner(core, graph, config, build.precision)

    def _config(self, core: Any, precision: Precision) -> dict[str, Any]:
        arithmetic = "f16" if precision == "fp16" and _has_fp16(core) else "f32"
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": arithmetic,
            "PERFORMANCE_HINT": "LATENCY",  # one inference at a time gets all threads
        }
        return config if self.threads is None else config | {"INFERENCE_NUM_THREADS": self.threads}


def _save(ov: Any, graph: Any, path: Path) -> None:
    try:
        ov.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:
        # C++ streams tell no reason; the folder was just made, so there is one left.
        text = f"OpenVINO could not write {path.name} ({error}), likely because the disk is full"
        raise OSError(errno.ENOSPC, text) from error


_Shapes = tuple[tuple[int, ...], ...]


class _Runner:
    """A model with open dimensions, compiled for each of the first few shapes that come.

    Compiled for one shape it is 1.2 to 1.6 times as fast (INT8, batch 1) and rounds sums in another
    order, so a shape keeps what it was first run with: equal inputs give equal outputs.
    Shapes beyond STATIC_SHAPES share one model whose dimensions stay open, because compiling takes
    from tens of milliseconds to seconds and each compiled model holds a copy of the weights.
    """

    def __init__(
        self, core: Any, graph: Any, config: Mapping[str, Any], precision: Precision
    ) -> None:
        self._core = core
        self._graph = graph
        self._config = config
        self._precision = precision
        self.inputs = _specs(graph.inputs)
        self._outputs = [output.get_any_name() for output in graph.outputs]
        self._requests: dict[_Shapes | None, Any] = {}
        self._last: dict[str, Array] | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; see ``Runner.run``."""
        fed = fitted(inputs, self.inputs)
        with _translated(f"OpenVINO could not run {self._precision}"):
            request = self._request(_shapes(fed))
            results = request.infer(list(fed.values()), share_inputs=True)
        self._last = fed
        return dict(zip(self._outputs, results.values(), strict=True))

    def describe(self) -> EngineInfo:
        """Profile the last batch and read the executed layers; see ``Runner.describe``."""
        if self._last is None:
            raise EngineError("describe() needs a batch that was run before")
        with _translated(f"OpenVINO could not profile {self._precision}"):
            compiled = self._compile(_shapes(self._last), profile=True)
            request = compiled.create_infer_request()
            for _ in range(PROFILED_RUNS):
                request.infer(list(self._last.values()), share_inputs=True)
            layers = _layers(compiled.get_runtime_model())
            threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
            lacking = self._precision == "fp16" and not _has_fp16(self._core)
        reason = "this CPU has no FP16 arithmetic" if lacking else ""
        return EngineInfo(
            backend=_version(),
            device=_device(self._core),
            threads=threads,
            precision=self._precision,
            ran=ran(layers),
            layers=layers,
            notes=(*shortfall(self._precision, layers, reason=reason), *saturation(layers)),
        )

    def _request(self, shapes: _Shapes) -> Any:
        known = shapes in self._requests or len(self._requests) < STATIC_SHAPES
        key = shapes if known else None
        if key not in self._requests:
            self._requests[key] = self._compile(key).create_infer_request()
        return self._requests[key]

    def _compile(self, shapes: _Shapes | None, *, profile: bool = False) -> Any:
        graph = self._graph
        if shapes is not None and graph.is_dynamic():
            graph = graph.clone()
            graph.reshape(dict(enumerate(shapes)))
        return self._core.compile_model(graph, DEVICE, {**self._config, "PERF_COUNT": profile})


def _shapes(arrays: Mapping[str, Array]) -> _Shapes:
    return tuple(array.shape for array in arrays.values())


def _layers(runtime: Any) -> tuple[Layer, ...]:
    """Return the executed layers of a profiled model in execution order."""
    found = []
    for operation in runtime.get_ordered_ops():
        info = operation.get_rt_info()
        told = {key: info[key].astype(str) for key in info}
        weighted = told["layerType"] in WEIGHTED
        # Times that round to 0 us read "not_executed" as well, so weighted layers always stay.
        if told["execTimeMcs"] == "not_executed" and not weighted:
            continue
        time = told["execTimeMcs"]
        layer = Layer(
            name=_name(told["originalLayersNames"], operation.get_friendly_name()),
            type=told["layerType"],
            precision=told["runtimePrecision"],
            weighted=weighted,
            ms=None if time == "not_executed" else int(time) / 1e3,
            kernel=told["primitiveType"],
        )
        found.append((int(told["execOrder"]), layer))
    return tuple(layer for _, layer in sorted(found, key=lambda pair: pair[0]))


def _name(originals: str, friendly: str) -> str:
    """Return the ONNX node's name: OpenVINO splits biases and scales off and names the rest so."""
    name = originals.partition(",")[0] or friendly
    return name.removesuffix("/WithoutBiases").removesuffix("/DequantizationMultiply")


def _specs(ports: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=port.get_any_name(),
            dtype=_dtype(port.get_element_type()),
            shape=tuple(
                int(axis.get_length()) if axis.is_static else None for axis in port.partial_shape
            ),
        )
        for port in ports
    )


def _dtype(element: Any) -> str:
    """Return NumPy's name of an element type; OpenVINO's own where NumPy has none, as for bf16."""
    name = str(element.get_type_name())
    kinds = {"i": "int", "u": "uint", "f": "float"}
    kind, bits = name[:1], name[1:]
    return (
        kinds[kind] + bits if kind in kinds and bits.isdigit() else name.replace("boolean", "bool")
    )


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineUnavailable(
            f"OpenVINO cannot be imported ({error}); install it: pip install openvino"
        ) from error
    return openvino


def _version() -> str:
    return f"openvino {_library().get_version().partition('-')[0]}"


def _has_fp16(core: Any) -> bool:
    return "FP16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def _device(core: Any) -> str:
    return str(core.get_property(DEVICE, "FULL_DEVICE_NAME")).strip()


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn OpenVINO's exceptions into an EngineError without its source locations."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        telling = [line for line in lines if not line.startswith(NOISE)]
        raise EngineError(f"{doing}: {'; '.join(telling or lines)}") from error
