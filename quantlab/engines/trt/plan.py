"""Plan files: a plan, the manifest beside it, and the check of both before TensorRT sees a byte.

A plan holds compiled kernels.  It fits one GPU and one TensorRT, and a library that is given
another reports little or nothing: ``deserialize_cuda_engine`` returns None, or the process ends.
So ``<precision>.plan.json`` says what ``<precision>.plan`` was built with and for, and ``load``
refuses in one sentence what does not fit, what was cut, and what was changed.

What fits: the very TensorRT version, unless the plan is version-compatible, when a newer one of the
same major does; the very GPU, unless the plan is hardware-compatible, or TensorRT-RTX's targets
cover it.  Sources: NVIDIA, TensorRT, "Engine Compatibility" and the support matrices' "Engine
Portability" ("newer TensorRT versions within the same major version"); the first also tells of
plans of an older major, which the second does not, so those are refused.

Limits: the hashes find what happened to a file, not who did it: whoever can write the plan can
write its manifest.  Load plans and plugins of people whom you trust.  From a run folder, plan and
manifest are also compared with run.json's record of them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, with_config

from quantlab import files
from quantlab.engines.base import ShapeRange
from quantlab.engines.trt import targets
from quantlab.engines.trt.capabilities import Name
from quantlab.errors import EngineError
from quantlab.records import Precision

FORMAT = 1
"""Raised when the meaning of a field changes."""

MANIFEST_BYTES = 1 << 20
"""Largest manifest that is read."""

HardwareCompatible = Literal["none", "ampere_plus", "same_compute_capability"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

AGAIN = "build it again with 'quantlab build'"


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the builder was told.

    Attributes:
        strongly_typed: whether the types of the ONNX graph are the types of the arithmetic.
        around: type of what INT8 leaves in floating point.
        tf32: whether FP32 may be computed in TF32.
        version_compatible, hardware_compatible, stripped: properties of the plan.
        optimization_level: 0 to 5, None for TensorRT's own default.
        memory: bytes of each memory pool that has a limit, by the pool's name in lower case.
        timing_cache: file of the timing cache; "" where there was none.
        pins: types of layers on 8.6 to 10, by pattern of their names.
    """

    strongly_typed: bool
    around: Literal["fp32", "fp16"] = "fp32"
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatible: HardwareCompatible = "none"
    stripped: bool = False
    optimization_level: int | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    timing_cache: str = ""
    pins: Mapping[str, Literal["fp32", "fp16"]] = field(default_factory=dict)


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A library of custom layers: where it lay at the build, and its SHA-256."""

    path: str
    sha256: Sha256


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a plan was built with and for.

    Attributes:
        quantlab: version that built it.
        created: time, ISO 8601 with offset.
        package, version: of TensorRT.
        gpu, compute_capability: where it was built; "" and None for a build without a GPU.
        targets: compute capabilities that were chosen for TensorRT-RTX; empty for its default.
        precision: what was asked for.
        quantization: how it became INT8; "none" if it did not.
        model: name of the ONNX file; model_sha256: of its bytes.
        profiles: optimization profiles in order: shapes by input.
        cache_sha256: of the calibration cache that INT8 was made with; "" where none was.
        plugins: libraries that must be loaded before the plan.
        options: what the builder was told.
        sha256, size_bytes: of the plan; ``save`` fills them in.
        format: FORMAT of the program that wrote it.
    """

    quantlab: str
    created: str
    package: Name
    version: Annotated[str, Field(pattern=r"^\d+(\.\w+)+$")]
    gpu: str
    compute_capability: tuple[int, int] | None
    targets: tuple[str, ...] = ()
    precision: Precision
    quantization: Literal["none", "explicit", "implicit"]
    model: str
    model_sha256: Sha256
    profiles: tuple[Mapping[str, ShapeRange], ...] = ()
    cache_sha256: Literal[""] | Sha256 = ""
    plugins: tuple[Plugin, ...] = ()
    options: Options
    sha256: Literal[""] | Sha256 = ""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Here:
    """Who wants to load a plan: the installed TensorRT and the GPU."""

    package: Name
    version: str
    gpu: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that was checked.

    Attributes:
        manifest: what it was built with and for.
        data: its bytes, the very ones that were hashed.
        plugins: libraries to load before it, each with the hash of the manifest.
    """

    manifest: Manifest
    data: bytes
    plugins: tuple[Path, ...]


_ADAPTER = TypeAdapter(Manifest)


def beside(plan: Path) -> Path:
    """Return where the manifest of a plan lies: ``int8.plan.json`` for ``int8.plan``."""
    return plan.with_name(f"{plan.name}.json")


def save(plan: Path, data: bytes | memoryview, manifest: Manifest) -> Manifest:
    """Write a plan and its manifest; return the manifest with the plan's hash and size.

    Raises:
        OutputError: the folder is not writable or the disk is full.
    """
    content = bytes(data)
    digest = hashlib.sha256(content).hexdigest()
    whole = replace(manifest, sha256=digest, size_bytes=len(content))
    files.write(plan, content)
    files.write(beside(plan), _ADAPTER.dump_json(whole, indent=1) + b"\n")
    return whole


def read(plan: Path) -> Manifest:
    """Return the manifest of a plan.

    Raises:
        EngineError: missing, unreadable, not a manifest, or of another format.
    """
    path = beside(plan)
    if not path.is_file():
        raise EngineError(
            f"{plan}: expected its manifest {path.name} beside it, found none, so what the plan "
            f"was built for is not known; copy the manifest along with the plan, or {AGAIN}"
        )
    data = files.read(path, limit=MANIFEST_BYTES, error=EngineError)
    try:
        manifest = _ADAPTER.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineError(
            f"{path}: not the manifest of a plan: {where and repr(where) + ': '}{first['msg']}; "
            f"copy plan and manifest again, or {AGAIN}"
        ) from error
    if manifest.format != FORMAT:
        raise EngineError(
            f"{path}: expected manifest format {FORMAT}, found {manifest.format}; "
            f"load it with the quantlab that wrote it, or {AGAIN}"
        )
    return manifest


def load(plan: Path, here: Here) -> Plan:
    """Check a plan against its manifest and this machine, and return its bytes.

    Raises:
        EngineError: another TensorRT, version or GPU, a plan or plugin that is missing, cut or
            changed, or no manifest; the message names the file, what was expected and found, and
            what to do.
    """
    manifest = read(plan)
    _check_version(plan, manifest, here)
    _check_gpu(plan, manifest, here)
    data = _bytes(plan, manifest)
    return Plan(manifest, data, tuple(_plugin(plan, found) for found in manifest.plugins))


def facts(manifest: Manifest) -> dict[str, str]:
    """Return a manifest in words: the ``facts`` of the engine's Build, for the report."""
    options = manifest.options
    built_on = manifest.gpu
    if manifest.compute_capability is not None:
        built_on += " (compute capability {}.{})".format(*manifest.compute_capability)
    found = {
        "TensorRT": f"{manifest.package} {manifest.version}",
        "built on": built_on or "a machine without a GPU",
        "targets": ", ".join(manifest.targets),
        "quantization": manifest.quantization,
        "types": "as in the graph" if options.strongly_typed else "chosen by TensorRT",
        "TF32": "allowed" if options.tf32 else "off",
        "version-compatible": "yes" if options.version_compatible else "no",
        "hardware-compatible": options.hardware_compatible,
        "weights": "stripped" if options.stripped else "in the plan",
        "profiles": "; ".join(map(_profile, manifest.profiles)),
        "plugins": ", ".join(Path(plugin.path).name for plugin in manifest.plugins),
        "model, SHA-256": manifest.model_sha256,
        "calibration cache, SHA-256": manifest.cache_sha256,
        "plan, SHA-256": manifest.sha256,
    }
    return {name: text for name, text in found.items() if text}


def _profile(profile: Mapping[str, ShapeRange]) -> str:
    return ", ".join(
        f"{name} {_shape(r.least)} to {_shape(r.most)}, best at {_shape(r.usual)}"
        for name, r in profile.items()
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _check_version(plan: Path, manifest: Manifest, here: Here) -> None:
    built, found = (f"{m.package} {m.version}" for m in (manifest, here))
    if manifest.package == here.package and manifest.version == here.version:
        return
    compatible = manifest.options.version_compatible and manifest.package == here.package
    if compatible and _successor(manifest.version, here.version):
        return
    why = ""
    if compatible:
        why = " (the plan is version-compatible: a newer one of the same major would do)"
    raise EngineError(
        f"{plan}: expected {built}, which built it, found {found}{why}; "
        f"install {built}, or {AGAIN} under {found}"
    )


def _successor(built: str, found: str) -> bool:
    """Whether ``found`` is of the same major as ``built`` and not older."""
    old, new = (tuple(int(p) for p in text.split(".") if p.isdigit()) for text in (built, found))
    return old[0] == new[0] and new >= old


def _check_gpu(plan: Path, manifest: Manifest, here: Here) -> None:
    if manifest.package == "tensorrt-rtx":
        targets.check(manifest.targets, here.gpu, here.compute_capability, what=str(plan))
        return
    level = manifest.options.hardware_compatible
    same = manifest.compute_capability == here.compute_capability
    fits = {
        "none": same and manifest.gpu == here.gpu,
        "same_compute_capability": same,
        "ampere_plus": here.compute_capability >= (8, 0),
    }
    if fits[level]:
        return
    expected = {
        "none": _gpu(manifest.gpu, manifest.compute_capability),
        "same_compute_capability": f"any {_gpu('GPU', manifest.compute_capability)}",
        "ampere_plus": "a GPU of compute capability 8.0 or later",
    }
    wider = "; 'hardware_compatible:' makes plans for more than one" if level == "none" else ""
    raise EngineError(
        f"{plan}: expected {expected[level]}, which it was built for, found "
        f"{_gpu(here.gpu, here.compute_capability)}; {AGAIN} on this GPU{wider}"
    )


def _gpu(name: str, capability: tuple[int, int] | None) -> str:
    known = "unknown" if capability is None else "{}.{}".format(*capability)
    return f"{name} with compute capability {known}"


def _bytes(plan: Path, manifest: Manifest) -> bytes:
    """Return the plan's bytes; its size is looked at before anything is read."""
    try:
        size = plan.stat().st_size
    except OSError as error:
        raise EngineError(f"cannot read {plan}: {error.strerror or error}; {AGAIN}") from error
    if size != manifest.size_bytes:
        what = "cut short" if size < manifest.size_bytes else "changed"
        raise EngineError(
            f"{plan} was {what}: expected {manifest.size_bytes} bytes as its manifest records, "
            f"found {size}; copy it again, or {AGAIN}"
        )
    data = files.read(plan, limit=manifest.size_bytes, error=EngineError)
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.sha256:
        raise EngineError(
            f"{plan} was changed: expected SHA-256 {manifest.sha256[:12]} as its manifest "
            f"records, found {found[:12]}; copy it again, or {AGAIN}"
        )
    return data


def _plugin(plan: Path, recorded: Plugin) -> Path:
    """Return the library, beside the plan or where it lay at the build, if it is unchanged."""
    original = Path(recorded.path)
    places = (plan.with_name(original.name), original)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise EngineError(
            f"{plan}: expected plugin library {original.name} beside it or at {original}, found "
            "neither; put the library that the plan was built with there"
        )
    found = files.sha256(path)
    if found != recorded.sha256:
        raise EngineError(
            f"plugin library {path} is not the one that {plan} was built with: expected SHA-256 "
            f"{recorded.sha256[:12]}, found {found[:12]}; put that one there, or {AGAIN} with this"
        )
    return path
