"""What ``quantlab cache show | verify | diff | convert`` do, as records; nothing is printed here.

Two kinds of file come in, told apart by content: TensorRT's calibration cache (``cache``) and ONNX
Runtime's calibration table (``ort_table``).  What goes out is chosen by suffix: ``.flatbuffers``,
``.json`` and ``.txt`` are ONNX Runtime's table, anything else is TensorRT's cache.

Units: scales and amax in the tensor's own units; a ratio has none.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from quantlab import cache, files, manifest, ort_table
from quantlab.cache import Cache, Header
from quantlab.errors import CacheError
from quantlab.manifest import Manifest
from quantlab.qparams import LEVELS

TABLE_SUFFIXES = (".flatbuffers", ".json", ".txt")
"""Of files that ``convert`` writes as ONNX Runtime's table."""


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """One line of a cache.

    Attributes:
        tensor: its name.
        scale: as written; 0 for an all-zero tensor.
        amax: scale * 127, the magnitude of the largest INT8 step.
        bits: the value as the file has it.
    """

    tensor: str
    scale: float
    amax: float
    bits: str


@dataclass(frozen=True, slots=True)
class DiffRow:
    """A tensor whose scale is not the same in two caches.

    Attributes:
        tensor: its name.
        first, second: its scale in each; None where it is missing.
        ratio: second / first; None if one is missing or the first is 0.
    """

    tensor: str
    first: float | None
    second: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What a cache is worth to a model.

    Attributes:
        header: the cache's.
        tensors: how many it has.
        missing: needed tensors without a scale; their layers would not run in INT8.
        unused: tensors of the cache that the model does not need; TensorRT ignores them.
        zero: needed tensors with scale 0, which TensorRT treats as having none.
        manifest: what the cache was made from; None if no manifest lies beside it.
        stale: what changed since the manifest was written, in sentences.
    """

    header: Header
    tensors: int
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    zero: tuple[str, ...]
    manifest: Manifest | None
    stale: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the cache fits: nothing missing, nothing stale."""
        return not (self.missing or self.stale)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What ``convert`` wrote.

    Attributes:
        kind: "TensorRT cache" or "ONNX Runtime table".
        tensors: how many it has.
        manifest: the manifest written beside it, if the source had one.
    """

    kind: str
    tensors: int
    manifest: Path | None


def show(shown: Cache) -> list[ScaleRow]:
    """Return a row for each tensor, in the file's order."""
    return [
        ScaleRow(tensor, scale, scale * LEVELS, cache.scale_hex(scale))
        for tensor, scale in shown.scales.items()
    ]


def diff(first: Cache, second: Cache) -> list[DiffRow]:
    """Return a row for each tensor whose scale differs or that only one cache has.

    The first cache's order, then what only the second has in its order.  Headers are not compared.
    """
    rows = []
    for tensor in dict.fromkeys((*first.scales, *second.scales)):
        a, b = first.scales.get(tensor), second.scales.get(tensor)
        if a != b:
            rows.append(DiffRow(tensor, a, b, b / a if a and b is not None else None))
    return rows


def verify(
    path: Path, needed: Collection[str], digests: tuple[str, str] | None = None
) -> Verification:
    """Check a cache, and the manifest beside it if there is one, against a model.

    Args:
        path: the cache.
        needed: the model's tensors that must have a scale.
        digests: the model's ``manifest.model_digests``; None leaves the model's hashes alone.

    Raises:
        CacheError: the cache or its manifest is unreadable or malformed, or the manifest records
            other bytes.
    """
    checked = cache.read(path)
    scales = checked.scales
    recorded = _manifest_of(path)
    stale: tuple[str, ...] = ()
    if recorded and digests:
        now = replace(recorded, graph_hash=digests[0], weights_hash=digests[1])
        stale = manifest.changes(recorded, now)
    wanted = frozenset(needed)
    return Verification(
        header=checked.header,
        tensors=len(scales),
        missing=tuple(tensor for tensor in needed if tensor not in scales),
        unused=tuple(tensor for tensor in scales if tensor not in wanted),
        zero=tuple(tensor for tensor in needed if scales.get(tensor) == 0),
        manifest=recorded,
        stale=stale,
    )


def header_of(path: Path) -> Header | None:
    """Return a cache's header; None if it has none that is well-formed, as a table has none.

    Raises:
        CacheError: the file cannot be read.
    """
    data = files.read(path, limit=cache.MAX_BYTES, error=CacheError)
    try:
        return cache.parse(data, str(path)).header
    except CacheError:
        return None


def convert(source: Path, target: Path, header: Header | None = None) -> Conversion:
    """Rewrite a cache or a table as ``target``'s suffix says.

    A cache made from a cache takes the manifest along, because the scales stay what they were.

    Args:
        source: TensorRT's cache or ONNX Runtime's table.
        target: file to write; may be ``source``.
        header: of the cache that is written; None keeps the source's.

    Raises:
        CacheError: the source is malformed or not what its manifest records, a cache is to be
            made from a table without ``header``, or the target cannot hold the tensors.
        OutputError: the target cannot be written.
    """
    data = files.read(source, limit=cache.MAX_BYTES, error=CacheError)
    if not data.startswith(b"TRT-"):
        return _write(target, ort_table.decode(data, str(source)), header)
    converted = cache.parse(data, str(source), header=header)
    recorded = _manifest_of(source)
    if target.suffix not in TABLE_SUFFIXES:
        cache.write(target, converted)
        return Conversion("TensorRT cache", len(converted.scales), _carry(recorded, target))
    if recorded and target.resolve() == manifest.beside(source).resolve():
        raise CacheError(f"{target} is the manifest of {source}; choose another name")
    return _write(target, cache.to_amax(converted), None)


def _write(target: Path, amax: Mapping[str, float], header: Header | None) -> Conversion:
    if target.suffix in TABLE_SUFFIXES:
        ort_table.write(target, amax)
        return Conversion("ONNX Runtime table", len(amax), None)
    if header is None:
        raise CacheError(
            f"{target}: ONNX Runtime's table says nothing of TensorRT; give the version of the "
            "TensorRT that will read the cache"
        )
    cache.write(target, cache.from_amax(amax, header))
    return Conversion("TensorRT cache", len(amax), None)


def _manifest_of(path: Path) -> Manifest | None:
    """Return the manifest beside a cache, if there is one, after checking the cache's bytes."""
    beside = manifest.beside(path)
    if not beside.exists():
        return None
    recorded = manifest.load(beside)
    manifest.unchanged(path, recorded)
    return recorded


def _carry(recorded: Manifest | None, target: Path) -> Path | None:
    if recorded is None:
        return None
    beside = manifest.beside(target)
    replace(recorded, cache_sha256=files.sha256(target)).save(beside)
    return beside
