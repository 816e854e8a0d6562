"""The command lines of NVIDIA's own tool that do what quantlab did: ``trtexec``, ``tensorrt_rtx``.

A plan's manifest says what its builder was told; each of that is a flag.  One command builds from
the same ONNX file, beside quantlab's plan; the others measure quantlab's own plan, one for each
batch size that the config measures.

Sources: the help of trtexec (NVIDIA/TensorRT, samples/common/sampleOptions.cpp, 8.6 and 10.x);
NVIDIA, "Migrating trtexec Usage from TensorRT 10.x to 11.x" (precision flags and --calib are gone,
--stronglyTyped says nothing any more); NVIDIA, TensorRT-RTX, "Performance Benchmarking", "CPU-Only
AOT", "Working with Runtime Cache" and "RTX CUDA Graphs".
Limits: what a tool has no flag for is said in a note.  trtexec measures random inputs, quantlab
measures samples.  Its --calib takes every cache for one of EntropyCalibration2.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantlab.engines.base import ShapeRange
from quantlab.engines.trt.capabilities import Generation, capabilities
from quantlab.engines.trt.plan import Manifest

MIB = 1 << 20

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A generation's tool.

    Attributes:
        name: of the executable.
        typed: flag of a strongly typed network, "" where that is always so.
        profiles: whether it takes more than one optimization profile.
        bytes: whether sizes may end in B; if not they are MiB.
        pools: its names of memory pools.
        tf32: flag that switches TF32 off, "" where none is documented.
    """

    name: str = "trtexec"
    typed: str = ""
    profiles: bool = True
    bytes: bool = True
    pools: Mapping[str, str] = field(
        default_factory=lambda: {
            "workspace": "workspace",
            "tactic_shared_memory": "tacticSharedMem",
        }
    )
    tf32: str = "--noTF32"


TOOLS: dict[Generation, Tool] = {
    "8": Tool(profiles=False, bytes=False, pools={"workspace": "workspace"}),
    "9": Tool(typed="--stronglyTyped"),
    "10": Tool(typed="--stronglyTyped"),
    "11": Tool(),
    "rtx": Tool(name="tensorrt_rtx", pools={"workspace": "workspace"}, tf32=""),
}

HARDWARE = {"ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """How quantlab measures.

    Attributes:
        batches: batch sizes.
        seconds, warmup_seconds: measured time and what goes before it.
        cuda_graph: whether inferences are replayed from a CUDA graph.
        device_id: the GPU.
    """

    batches: tuple[int, ...] = ()
    seconds: float = 3.0
    warmup_seconds: float = 0.2
    cuda_graph: bool = False
    device_id: int = 0


@dataclass(frozen=True, slots=True)
class Commands:
    """Shell command lines: one that builds, others that measure, and what no flag says."""

    build: str
    measure: tuple[str, ...]
    notes: tuple[str, ...]


def commands(manifest: Manifest, plan: Path, cache: Path, bench: Bench) -> Commands:
    """Return the equivalent of a plan.

    Args:
        manifest: of the plan.
        plan: where it lies, in the folder beside its ONNX file's.
        cache: the run's calibration cache; used where the plan was made from it.
        bench: how it is measured.
    """
    able = capabilities(manifest.package, manifest.version)
    tool = TOOLS[able.generation]
    model = plan.parent.parent / manifest.model
    notes: list[str] = []
    build = [
        tool.name,
        f"--onnx={model}",
        f"--saveEngine={plan.with_suffix('')}.{tool.name}.plan",
        *_types(manifest, tool, cache, notes),
        *_shapes(manifest.profiles, tool, notes),
        *_pools(manifest.options.memory, tool, notes),
        *_builder(manifest),
        *_properties(manifest),
        *_device(bench),
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    runs = _runs(manifest, bench)
    measure = [
        [tool.name, f"--loadEngine={plan}", *run, *_bench(tool, plan, bench)] for run in runs
    ]
    return Commands(shlex.join(build), tuple(map(shlex.join, measure)), tuple(notes))


def _types(manifest: Manifest, tool: Tool, cache: Path, notes: list[str]) -> Iterator[str]:
    """Yield what says which types are computed in."""
    options = manifest.options
    if options.strongly_typed:
        if tool.typed:
            yield tool.typed
    elif manifest.precision != "fp32":
        half = options.around == "fp16" or "fp16" in options.pins.values()
        if manifest.precision == "int8":
            yield "--int8"
        if manifest.precision == "fp16" or half:
            yield "--fp16"
        if manifest.quantization == "implicit":
            yield f"--calib={cache}"
        yield from _pins(options.pins, notes)
    if not options.tf32 and tool.tf32:
        yield tool.tf32
    elif not options.tf32:
        notes.append(f"TF32 was switched off; {tool.name} documents no flag for that")


def _pins(pins: Mapping[str, str], notes: list[str]) -> Iterator[str]:
    told = {name: kind for name, kind in pins.items() if not re.search(r"[?[,:]|\*.*\*", name)}
    if len(told) < len(pins):
        left = ", ".join(name for name in pins if name not in told)
        notes.append(f"pinned layers that trtexec cannot name this way: {left}")
    if told:
        spec = ",".join(f"{name}:{kind}" for name, kind in told.items())
        yield "--precisionConstraints=obey"
        yield f"--layerPrecisions={spec}"
        yield f"--layerOutputTypes={spec}"


def _shapes(
    profiles: Sequence[Mapping[str, ShapeRange]], tool: Tool, notes: list[str]
) -> Iterator[str]:
    kept = profiles if tool.profiles else profiles[:1]
    if len(kept) < len(profiles):
        notes.append(f"the plan has {len(profiles)} profiles; this trtexec takes the first only")
    for index, profile in enumerate(kept):
        if len(kept) > 1:
            yield f"--profile={index}"
        yield f"--minShapes={_spec({name: r.least for name, r in profile.items()})}"
        yield f"--optShapes={_spec({name: r.usual for name, r in profile.items()})}"
        yield f"--maxShapes={_spec({name: r.most for name, r in profile.items()})}"


def _spec(shapes: Mapping[str, Shape]) -> str:
    """Return ``input:1x3x8x8,...``; a name with a colon stands in quotes of trtexec's own."""
    parts = []
    for name, shape in shapes.items():
        shown = f"'{name}'" if ":" in name else name
        parts.append(f"{shown}:{'x'.join(map(str, shape)) or 'scalar'}")
    return ",".join(parts)


def _pools(memory: Mapping[str, int], tool: Tool, notes: list[str]) -> Iterator[str]:
    known = [
        f"{tool.pools[pool]}:{_size(size, tool)}"
        for pool, size in memory.items()
        if pool in tool.pools
    ]
    if known:
        yield f"--memPoolSize={','.join(known)}"
    notes += [
        f"{tool.name} has no flag for the limit of memory pool {pool}"
        for pool in memory
        if pool not in tool.pools
    ]


def _builder(manifest: Manifest) -> Iterator[str]:
    """Yield how the builder searches, and what it loads."""
    options = manifest.options
    if options.optimization_level is not None:
        yield f"--builderOptimizationLevel={options.optimization_level}"
    if options.timing_cache:
        yield f"--timingCacheFile={options.timing_cache}"
    for plugin in manifest.plugins:
        yield f"--dynamicPlugins={plugin.path}"
        if options.version_compatible:
            yield f"--setPluginsToSerialize={plugin.path}"


def _properties(manifest: Manifest) -> Iterator[str]:
    """Yield where the plan can be used."""
    options = manifest.options
    if options.version_compatible:
        yield "--versionCompatible"
    if options.hardware_compatible in HARDWARE:
        yield f"--hardwareCompatibilityLevel={HARDWARE[options.hardware_compatible]}"
    if options.stripped:
        yield "--stripWeights"
    if manifest.targets:
        yield f"--computeCapabilities={','.join(n.removeprefix('sm') for n in manifest.targets)}"


def _size(size: int, tool: Tool) -> str:
    """Return bytes as the tool reads them: whole MiB where they are, without a unit."""
    if size % MIB == 0:
        return str(size // MIB)
    return f"{size}B" if tool.bytes else str(size / MIB)


def _device(bench: Bench) -> Iterator[str]:
    if bench.device_id:
        yield f"--device={bench.device_id}"


def _runs(manifest: Manifest, bench: Bench) -> Iterator[list[str]]:
    """Yield what tells the shapes of each measurement; none where they are fixed."""
    if not manifest.profiles:
        yield []
        return
    profile = manifest.profiles[0]
    for batch in bench.batches or (0,):
        shapes = {name: _at(found, batch) for name, found in profile.items()}
        yield [f"--shapes={_spec(shapes)}"]


def _at(found: ShapeRange, batch: int) -> Shape:
    """Return the usual shape with the batch axis, if that is open, at a batch size."""
    first_open = bool(found.usual) and found.least[0] != found.most[0]
    return (batch, *found.usual[1:]) if batch and first_open else found.usual


def _bench(tool: Tool, plan: Path, bench: Bench) -> Iterator[str]:
    yield f"--warmUp={round(1000 * bench.warmup_seconds)}"
    yield f"--duration={bench.seconds:g}"
    yield from _device(bench)
    if tool.name == "trtexec":
        if bench.cuda_graph:
            yield "--useCudaGraph"
        return
    # tensorrt_rtx leaves the copies out, spins and captures unless it is told otherwise
    yield "--includeDataTransfers"
    yield "--noSpinWait"
    yield f"--rtxCudaGraphStrategy={'wholeGraph' if bench.cuda_graph else 'disable'}"
    yield f"--runtimeCacheFile={plan.with_suffix('')}.runtime-cache"
