"""ONNX Runtime on the CPU, or on CUDA where the installed wheel has it.

The engine is the model itself, ``<precision>.onnx``: what ONNX Runtime makes of it when it loads
fits one machine only.  Its CPU kernels compute INT8 with unsigned activations, so its placement
policy is its own.  Precisions and times are read from ONNX Runtime's profile of the last batch.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from quantlab.engines import artifact
from quantlab.engines.base import Array, Runner
from quantlab.engines.host import cpu_model, usable_cores
from quantlab.engines.layers import (
    FLOAT_PRODUCTS,
    INTEGER_PRODUCTS,
    ran,
    saturation,
    short_type,
    shortfall,
)
from quantlab.engines.ort_session import CPU, library, run, session, specs
from quantlab.engines.signature import fitted, supported
from quantlab.errors import EngineError, EngineUnavailable, OutputError
from quantlab.records import Build, EngineInfo, Layer, Precision

CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {"use_tf32": "0"}
"""FP32 means FP32: by default the CUDA provider rounds factors to TF32's 10 bits."""

CASTS = "ONNX Runtime's CPU kernels compute FP16 operators in FP32 between casts"

PROFILED_RUNS = 8
"""Inferences that a layer's time is the mean of, after one that is not counted."""

KERNEL = "_kernel_time"
BLOCKED = "_nchwc"
COPIED = re.compile(r"_token_\d+$")
"""Endings that ONNX Runtime gives to the names of nodes that it times, replaces and moves."""


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """Runs on the CPU or on CUDA.

    Attributes:
        provider: "cpu", or "cuda", which needs the onnxruntime-gpu wheel and its libraries.
        threads: of one inference on the CPU; every usable core if not given.
    """

    provider: Literal["cpu", "cuda"] = "cpu"
    threads: PositiveInt | None = None

    name: ClassVar[str] = "onnxruntime"
    policy: ClassVar[str] = "onnxruntime"

    def available(self) -> str:
        """Return version, provider and device; see ``Engine.available``."""
        ort = library()
        self._require_provider(ort)
        return f"onnxruntime {ort.__version__} on {_device(self)}"

    def build(self, model: Path, precision: Precision, folder: Path) -> Build:
        """Copy to ``<precision>.onnx`` and load it once; see ``Engine.build``."""
        self._require_provider(library())
        main = f"{precision}.onnx"

        def write(target: Path) -> None:
            _load(self, artifact.source(model))
            artifact.copy_model(model, target / main)

        return artifact.build(
            folder,
            precision,
            backend=self.name,
            device=self.provider.upper(),
            main=main,
            write=write,
        )

    @contextmanager
    def open(self, build: Build, root: Path) -> Iterator[Runner]:
        """Verify and load; see ``Engine.open``."""
        self._require_provider(library())
        yield _Runner(self, artifact.verify(build, root, backend=self.name), build.precision)

    def _require_provider(self, ort: Any) -> None:
        if self.provider == "cpu":
            return
        if CUDA not in ort.get_available_providers():
            raise EngineUnavailable(
                f"the installed onnxruntime {ort.__version__} has no CUDA provider; replace it: "
                "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]', "
                "or set 'provider: cpu'"
            )
        ort.preload_dlls()  # finds the CUDA libraries that pip installed


class _Runner:
    def __init__(self, engine: OnnxRuntime, path: Path, precision: Precision) -> None:
        self._engine = engine
        self._path = path
        self._precision = precision
        self._session = _load(engine, path)
        self._inputs = specs(self._session.get_inputs())
        self._outputs = [port.name for port in self._session.get_outputs()]
        self._last: dict[str, Array] | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; see ``Runner.run``."""
        fed = fitted(inputs, self._inputs)
        results = run(self._session, self._outputs, fed)
        self._last = fed
        return results

    def describe(self) -> EngineInfo:
        """Profile the last batch; see ``Runner.describe``."""
        if self._last is None:
            raise EngineError("describe() needs a batch that was run before")
        layers = executed(self._profile(self._last), self._path)
        home = self._session.get_providers()[0]
        cpu = self._engine.provider == "cpu"
        reason = CASTS if cpu and self._precision == "fp16" else ""
        notes = shortfall(self._precision, layers, reason=reason)
        notes += saturation(layers) if cpu else []
        strays = [layer.name for layer in layers if layer.weighted and layer.kernel != home]
        if strays:
            notes.append(f"on the CPU instead of {home}: {', '.join(strays)}")
        return EngineInfo(
            backend=f"onnxruntime {library().__version__}",
            device=_device(self._engine),
            threads=self._engine.threads or usable_cores(),
            precision=self._precision,
            ran=ran(layers),
            layers=layers,
            notes=tuple(notes),
        )

    def _profile(self, inputs: Mapping[str, Array]) -> list[dict[str, Any]]:
        with TemporaryDirectory() as folder:
            profiled = _load(self._engine, self._path, profile=Path(folder) / "profile")
            for _ in range(PROFILED_RUNS + 1):
                run(profiled, self._outputs, inputs)
            text = Path(profiled.end_profiling()).read_text(encoding="utf-8")
            try:
                events: list[dict[str, Any]] = json.loads(text)
            except ValueError as error:  # ONNX Runtime does not tell when a write fails
                raise OutputError(
                    f"cannot write {folder}: ONNX Runtime's profile is cut off; free disk space "
                    "there, or set TMPDIR to another folder"
                ) from error
        return events


def _device(engine: OnnxRuntime) -> str:
    return cpu_model() if engine.provider == "cpu" else "CUDA device 0"


def _load(engine: OnnxRuntime, path: Path, *, profile: Path | None = None) -> Any:
    providers = CPU if engine.provider == "cpu" else ((CUDA, CUDA_OPTIONS), *CPU)
    opened = session(path, threads=engine.threads, providers=providers, profile=profile)
    if engine.provider == "cuda" and opened.get_providers()[0] != CUDA:
        raise EngineUnavailable(
            "ONNX Runtime has the CUDA provider but could not load it: a CUDA or cuDNN library or "
            "the device is missing; install them: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    supported(specs((*opened.get_inputs(), *opened.get_outputs())), "ONNX Runtime")
    return opened


def executed(events: list[dict[str, Any]], model: Path) -> tuple[Layer, ...]:
    """Return the layers of ONNX Runtime's profile, timed without the first inference.

    Args:
        events: the profile.
        model: the ONNX file, for the names of nodes that ONNX Runtime renamed.
    """
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    nodes: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            nodes[event["name"], event["args"]["node_index"]].append(event)
    return tuple(
        _layer(_original(name.removesuffix(KERNEL), producers, constants), timed)
        for (name, _), timed in nodes.items()
    )


def _original(name: str, producers: Mapping[str, Any], constants: Set[str]) -> str:
    """Return the ONNX node's name of a layer.

    A convolution that is moved to blocked channels is renamed to its output tensor and "_nchwc";
    the tensor may be that of an activation fused into it.
    """
    if not name.endswith(BLOCKED):
        return COPIED.sub("", name)
    node = producers.get(name.removesuffix(BLOCKED))
    while node is not None and node.op_type not in FLOAT_PRODUCTS:
        sources = [tensor for tensor in node.input if tensor and tensor not in constants]
        node = producers.get(sources[0]) if len(sources) == 1 else None
    return node.name if node is not None and node.name else name


def _layer(name: str, timed: list[dict[str, Any]]) -> Layer:
    arguments = timed[0]["args"]
    kind = arguments["op_name"]
    integer = kind in INTEGER_PRODUCTS
    types = [next(iter(one)) for one in arguments["input_type_shape"] if one]
    first = short_type(types[0]) if types else ""
    counted = timed[len(timed) // (PROFILED_RUNS + 1) :]  # a loop's body runs several times
    return Layer(
        name=name or kind,
        type=kind,
        # DynamicQuantizeMatMul and its like take floats and compute in unsigned integers.
        precision="u8" if integer and first not in ("i8", "u8") else first,
        weighted=integer or kind in FLOAT_PRODUCTS,
        ms=sum(event["dur"] for event in counted) / PROFILED_RUNS / 1e3,
        kernel=arguments["provider"],
    )
