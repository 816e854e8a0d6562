"""TensorRT's INT8 calibration cache: a text file of one header and one line a tensor.

    TRT-8601-EntropyCalibration2
    data: 3c010204
    input_1:0: 4000890a
    unused: 0

The header's number is the version of the TensorRT that reads the file: major * 1000 + minor * 100
+ patch up to 9.x, major * 10000 + minor * 100 + patch from 10.0; the build number is not in it.
A value is the scale, amax / 127, as the bits of a big-endian float32 in lower-case hex without
leading zeros, so a tensor that is always zero has the value ``0``.  Names are the ONNX tensors'
own and may hold colons and spaces: a line is split at its last colon.

Source: NVIDIA/TensorRT v7.0.0 samples/opensource/sampleINT8/README.md, v8.6.1 and v10.16
include/NvInferRuntimeBase.h, and v8.6.1 samples/common/sampleEngines.cpp.
Units: scales and amax in the tensor's own units.
Limits: TensorRT 2 to 10.  A line lost whole leaves a well-formed file; the manifest beside the
cache, or ``require``, finds that.  Read leniently, because the value stays unambiguous: CR LF line
ends, upper-case hex and leading zeros.  Written exactly.
"""

import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from quantlab import files
from quantlab.errors import CacheError
from quantlab.qparams import FLOAT32_MAX, LEVELS, scale_of
from quantlab.records import TensorThreshold, Thresholds

Algorithm = Literal[
    "EntropyCalibration2", "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration"
]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
"""What a header can name; the scales mean the same under each."""

MAX_BYTES = 1 << 24
"""Largest file that is read; 300,000 tensors fit."""

_INFINITY = 0x7F800000
"""Bits of float32 +inf: smaller ones are the finite numbers that are not negative."""

_VERSION = re.compile(r"([1-9][0-9]?)\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)")
_HEADER = re.compile(r"TRT-([1-9][0-9]{3}|[1-9][0-9]{5})-([A-Za-z0-9]+)")
_SCALE = re.compile(r"[0-9a-fA-F]{1,8}")


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a cache.

    Attributes:
        version: TensorRT's "major.minor.patch".
        algorithm: calibrator class that the reading program derives from.

    Raises:
        CacheError: a version or algorithm that no header can hold.
    """

    version: str
    algorithm: Algorithm

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise CacheError(
                f"unknown calibration algorithm {self.algorithm!r}; "
                f"choose from {', '.join(ALGORITHMS)}"
            )
        header_number(self.version)

    @property
    def number(self) -> int:
        """The version as TensorRT counts it."""
        return header_number(self.version)

    def __str__(self) -> str:
        """Return the line, e.g. ``TRT-8601-EntropyCalibration2``."""
        return f"TRT-{self.number}-{self.algorithm}"


@dataclass(frozen=True, slots=True)
class Cache:
    """What a calibration cache says.

    Attributes:
        header: who may read it.
        scales: amax / 127 by tensor, in the file's order; 0.0 for an all-zero tensor.
    """

    header: Header
    scales: Mapping[str, float]


def header_number(version: str) -> int:
    """Return NV_TENSORRT_VERSION of "major.minor.patch".

    >>> header_number("8.6.1"), header_number("10.3.0")
    (8601, 100300)

    Raises:
        CacheError: not a version, or one that the number cannot hold.
    """
    match = _VERSION.fullmatch(version)
    major, minor, patch = map(int, match.groups()) if match else (0, 0, 0)
    if match is None or (major < 10 and minor > 9):
        raise CacheError(
            f"TensorRT version: expected major.minor.patch such as '8.6.1', got {version!r}"
        )
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def header_for(library_version: str, algorithm: str = "EntropyCalibration2") -> Header:
    """Return the header that a TensorRT accepts, from its ``__version__`` such as "10.3.0.26".

    Raises:
        CacheError: not a version, an unknown algorithm, or a TensorRT without calibrators.
    """
    version = ".".join(library_version.split(".")[:3])
    if not 2000 <= header_number(version) < 110000:
        raise CacheError(
            f"TensorRT {version} reads no calibration cache, TensorRT 2 to 10 do; build its "
            "engine from the Q/DQ model"
        )
    # Header itself refuses what is no Algorithm.
    return Header(version, algorithm)  # type: ignore[arg-type]


def scale_hex(scale: float) -> str:
    """Return the nearest float32's bits as the cache writes them.

    >>> scale_hex(1 / 127), scale_hex(0.0)
    ('3c010204', '0')

    Raises:
        CacheError: NaN, infinite, negative, or beyond float32.
    """
    try:
        bits = int.from_bytes(struct.pack(">f", scale))
    except OverflowError:
        bits = _INFINITY
    if bits >= _INFINITY:  # the sign bit makes negative numbers larger still
        raise CacheError(f"scale: expected a finite float32 that is not negative, got {scale!r}")
    return f"{bits:x}"


def parse(data: bytes, source: str, *, header: Header | None = None) -> Cache:
    """Return what ``data`` says.

    Args:
        data: a cache file's bytes.
        source: file name for messages.
        header: stands in for the first line, which then only has to start with "TRT-".

    Raises:
        CacheError: anything but a whole, well-formed cache; says file, line, tensor and remedy.
    """
    first, *lines = data.split(b"\n")
    if not first.startswith(b"TRT-"):
        raise CacheError(
            f"{source}:1: expected a header such as 'TRT-8601-EntropyCalibration2', "
            f"got {_shown(first)}; this is no TensorRT calibration cache"
        )
    if not lines or lines.pop():
        raise CacheError(
            f"{source}:{data.count(10) + 1}: the last line has no line end, so the file is "
            "truncated; copy it again or recalibrate"
        )
    if not lines:
        raise CacheError(f"{source}: no tensor follows the header; recalibrate")
    return Cache(header or _parse_header(first, source), _parse_scales(lines, source))


def serialize(cache: Cache) -> bytes:
    """Return the file's bytes, as TensorRT writes them.

    Raises:
        CacheError: no tensor, a name that a line cannot hold, or a scale that float32 cannot.
    """
    if not cache.scales:
        raise CacheError("a calibration cache needs at least one tensor, got none")
    lines = [str(cache.header)]
    for tensor, scale in cache.scales.items():
        if not tensor or "\n" in tensor or "\0" in tensor:
            raise CacheError(
                f"tensor {tensor!r}: a calibration cache cannot hold an empty name, a line end or "
                "a NUL; rename the tensor in the model"
            )
        try:
            lines.append(f"{tensor}: {scale_hex(scale)}")
        except CacheError as error:
            raise CacheError(f"tensor {tensor!r}: {error}") from error
    try:
        return ("\n".join(lines) + "\n").encode()
    except UnicodeEncodeError as error:
        raise CacheError(f"a tensor's name is not valid Unicode: {error}") from error


def read(path: Path, *, header: Header | None = None) -> Cache:
    """Return the cache in a file; ``header`` as in ``parse``.

    Raises:
        CacheError: unreadable or malformed.
    """
    return parse(files.read(path, limit=MAX_BYTES, error=CacheError), str(path), header=header)


def write(path: Path, cache: Cache) -> None:
    """Write the cache whole or not at all.

    Raises:
        CacheError: it cannot be written as a cache.
        OutputError: the folder is not writable or the disk is full.
    """
    files.write(path, serialize(cache))


def from_amax(amax: Mapping[str, float], header: Header) -> Cache:
    """Return the cache of thresholds ``amax`` (>= 0, by tensor).

    Scales are ``qparams.scale_of``, so that the cache and the Q/DQ model agree; 0 where amax is 0.

    Raises:
        CacheError: an amax that is negative or no finite float32.
    """
    return Cache(header, {tensor: _scale(tensor, value) for tensor, value in amax.items()})


def from_thresholds(thresholds: Thresholds, header: Header) -> Cache:
    """Return the cache of what calibration decided; Raises as ``from_amax``."""
    return from_amax({tensor: t.threshold for tensor, t in thresholds.items()}, header)


def to_amax(cache: Cache) -> dict[str, float]:
    """Return ``scale * 127`` by tensor; exact, a float64 holds the product."""
    return {tensor: scale * LEVELS for tensor, scale in cache.scales.items()}


def thresholds_from(cache: Cache) -> dict[str, TensorThreshold]:
    """Return a cache as thresholds.

    A cache does not tell the sign of a tensor, so ``minimum`` is ``-threshold``: nothing is taken
    as unsigned.
    """
    return {
        tensor: TensorThreshold(
            tensor=tensor, amax=amax, threshold=amax, method="cache", minimum=0.0 - amax
        )
        for tensor, amax in to_amax(cache).items()
    }


def require(cache: Cache, needed: Collection[str], source: str) -> None:
    """Raise CacheError, naming them, if any of the tensors ``needed`` has no scale."""
    missing = [tensor for tensor in needed if tensor not in cache.scales]
    if not missing:
        return
    if len(missing) == len(needed):
        raise CacheError(
            f"{source}: has a scale for none of the model's {len(needed)} tensors, but for "
            f"{some(cache.scales)}; this is the cache of another model: recalibrate"
        )
    raise CacheError(
        f"{source}: no scale for {len(missing)} of the model's {len(needed)} tensors: "
        f"{some(missing)}; recalibrate, or the layers at these tensors will not run in INT8"
    )


def some(tensors: Collection[str], limit: int = 10) -> str:
    """Return the first names quoted, and how many more there are."""
    names = [repr(tensor) for tensor in tensors]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _parse_header(line: bytes, source: str) -> Header:
    match = _HEADER.fullmatch(line.removesuffix(b"\r").decode("latin-1"))
    if match is None or match[2] not in ALGORITHMS:
        raise CacheError(
            f"{source}:1: expected 'TRT-<version number>-<{'|'.join(ALGORITHMS)}>', such as "
            f"'TRT-8601-EntropyCalibration2', got {_shown(line)}; "
            "rewrite it with 'quantlab cache convert', giving your TensorRT's version"
        )
    number = int(match[1])
    major, rest = divmod(number, 10000 if number >= 100000 else 1000)
    return Header(f"{major}.{rest // 100}.{rest % 100}", match[2])


def _parse_scales(lines: list[bytes], source: str) -> dict[str, float]:
    scales: dict[str, float] = {}
    first_seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        where = f"{source}:{number}"
        tensor, scale = _parse_line(line.removesuffix(b"\r"), where)
        if tensor in scales:
            raise CacheError(
                f"{where}: tensor {tensor!r} has a scale already, on line {first_seen[tensor]}; "
                "keep one of the two lines or recalibrate"
            )
        scales[tensor], first_seen[tensor] = scale, number
    return scales


def _parse_line(line: bytes, where: str) -> tuple[str, float]:
    raw, colon, value = line.rpartition(b":")
    digits = value[1:].decode("latin-1")
    if not (raw and colon and value[:1] == b" " and _SCALE.fullmatch(digits)) or b"\0" in raw:
        raise CacheError(
            f"{where}: expected '<tensor>: <1 to 8 hex digits>', got {_shown(line)}; "
            "repair the line or recalibrate"
        )
    try:
        tensor = raw.decode()
    except UnicodeDecodeError as error:
        raise CacheError(
            f"{where}: expected a tensor's name in UTF-8, got {_shown(raw)}; recalibrate"
        ) from error
    bits = int(digits, 16)
    scale: float = struct.unpack(">f", bits.to_bytes(4))[0]
    if bits >= _INFINITY:
        raise CacheError(
            f"{where}: tensor {tensor!r}: expected a scale that is finite and not negative, "
            f"got {scale} ({digits}); recalibrate"
        )
    return tensor, scale


def _scale(tensor: str, amax: float) -> float:
    if not 0 <= amax <= FLOAT32_MAX:
        raise CacheError(
            f"tensor {tensor!r}: expected a threshold from 0 to {FLOAT32_MAX:.4g}, got {amax!r}; "
            "recalibrate, or keep this tensor in floating point"
        )
    return scale_of(amax) if amax > 0 else 0.0


def _shown(raw: bytes) -> str:
    """Return at most 80 bytes of a line, quoted."""
    text = raw[:80].decode("utf-8", "backslashreplace")
    return repr(text + "..." if len(raw) > 80 else text)
