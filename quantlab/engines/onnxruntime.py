"""ONNX Runtime on the CPU, or on CUDA where the installed wheel has it.

The engine is the model itself, ``<precision>.onnx``: what ONNX Runtime makes of it when it loads
fits one machine only.  Its CPU kernels compute INT8 with unsigned activations, so its placement
policy is its own.  Precisions and times are read from ONNX Runtime's profile of the last batch.
On CUDA it is run and measured in the GPU's own memory (device.py).
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from quantlab.cuda.device import Device
from quantlab.engines import artifact
from quantlab.engines.base import NOTHING, PLAIN, Array, BuildContext, Recipe, Runner
from quantlab.engines.host import cpu_model, usable_cores
from quantlab.engines.layers import (
    FLOAT_PRODUCTS,
    INTEGER_PRODUCTS,
    ran,
    saturation,
    short_type,
    shortfall,
)
from quantlab.engines.ort_cuda import CUDA, CUDA_OPTIONS, checked, running
from quantlab.engines.ort_session import CPU, library, run, session, specs
from quantlab.engines.signature import fitted, supported
from quantlab.errors import ConfigError, EngineError, EngineUnavailable, OutputError
from quantlab.records import Build, EngineInfo, Layer, Precision

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
        cuda_graph: whether inferences on CUDA are replayed from a CUDA graph, where that can be
            done: all of the model on the GPU, without If, Loop and Scan.
    """

    provider: Literal["cpu", "cuda"] = "cpu"
    threads: PositiveInt | None = None
    cuda_graph: bool = False

    name: ClassVar[str] = "onnxruntime"
    policy: ClassVar[str] = "onnxruntime"
    recipe: ClassVar[Recipe] = PLAIN

    def __post_init__(self) -> None:
        """Raise ConfigError for a CUDA graph without CUDA."""
        if self.cuda_graph and self.provider != "cuda":
            raise ConfigError(
                "cuda_graph: there are CUDA graphs on a GPU only; set 'provider: cuda'",
                "cuda_graph",
            )

    def available(self) -> str:
        """Return version, provider and device; see ``Engine.available``."""
        ort = library()
        self._require_provider(ort)
        return f"onnxruntime {ort.__version__} on {_device(self)}"

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
        path = artifact.verify(build, root, backend=self.name)
        if self.provider == "cpu":
            yield _Runner(self, path, build.precision)
            return
        describe = partial(_described, self, path, build.precision)
        with running(path, device_id=0, cuda_graph=self.cuda_graph, describe=describe) as runner:
            yield runner

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
        self.inputs = specs(self._session.get_inputs())
        self._outputs = [port.name for port in self._session.get_outputs()]
        self._last: dict[str, Array] | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; see ``Runner.run``."""
        fed = fitted(inputs, self.inputs)
        results = run(self._session, self._outputs, fed)
        self._last = fed
        return results

    def describe(self) -> EngineInfo:
        """Profile the last batch; see ``Runner.describe``."""
        if self._last is None:
            raise EngineError("describe() needs a batch that was run before")
        return _described(self._engine, self._path, self._precision, self._last)


def _described(
    engine: OnnxRuntime, path: Path, precision: Precision, inputs: Mapping[str, Array]
) -> EngineInfo:
    """Profile a batch in a session of its own."""
    layers = executed(_profile(engine, path, inputs), path)
    cpu = engine.provider == "cpu"
    home = CPU[0] if cpu else CUDA
    reason = CASTS if cpu and precision == "fp16" else ""
    notes = shortfall(precision, layers, reason=reason)
    notes += saturation(layers) if cpu else []
    strays = [layer.name for layer in layers if layer.weighted and layer.kernel != home]
    if strays:
        notes.append(f"on the CPU instead of {home}: {', '.join(strays)}")
    return EngineInfo(
        backend=f"onnxruntime {library().__version__}",
        device=_device(engine),
        threads=engine.threads or usable_cores(),
        precision=precision,
        ran=ran(layers),
        layers=layers,
        notes=tuple(notes),
    )


def _profile(engine: OnnxRuntime, path: Path, inputs: Mapping[str, Array]) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        profiled = _load(engine, path, profile=Path(folder) / "profile")
        outputs = [port.name for port in profiled.get_outputs()]
        for _ in range(PROFILED_RUNS + 1):
            run(profiled, outputs, inputs)
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
    return cpu_model() if engine.provider == "cpu" else Device().name


def _load(engine: OnnxRuntime, path: Path, *, profile: Path | None = None) -> Any:
    providers = CPU if engine.provider == "cpu" else ((CUDA, CUDA_OPTIONS), *CPU)
    opened = session(path, threads=engine.threads, providers=providers, profile=profile)
    if engine.provider == "cuda":
        checked(opened)
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
