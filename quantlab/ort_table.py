"""Calibration tables of ONNX Runtime's TensorRT provider: the largest magnitude of each tensor.

``onnxruntime.quantization.quant_utils.write_calibration_table`` writes three forms of one table:

    calibration.flatbuffers   what the provider reads:
                                  table TrtTable { dict:[KeyValue]; }
                                  table KeyValue { key:string; value:string; }
                                  root_type TrtTable;
                              with values as decimal strings
    calibration.cache         text, a line "<tensor> <value>" each
    calibration.json          {tensor: {"lowest": .., "highest": ..}}

Reading tells them apart by content, writing by suffix.  Values are amax, not amax / 127.

Units: amax in the tensor's own units.
Source: onnxruntime 1.31 and 1.32 quantization/{quant_utils,calibrate}.py, CalTableFlatBuffers/*.py
and, for what the provider reads, core/providers/tensorrt/tensorrt_execution_provider_utils.h.
Limits: ONNX Runtime writes max(highest, lowest) into the first two forms, so a tensor in [-5, 1]
stands there as 1, which no reader can tell; the JSON form has both ends and is the one to convert.
"""

import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic_core import from_json

from quantlab import files
from quantlab.errors import CacheError
from quantlab.qparams import FLOAT32_MAX

MAX_BYTES = 1 << 24
"""Largest file that is read."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""Smallest amax other than 0: the provider's std::stof throws on subnormal float32 values."""

_DECIMAL = re.compile(rb"[0-9]{1,40}(\.[0-9]{0,40})?([eE][-+]?[0-9]{1,4})?")


def read(path: Path) -> dict[str, float]:
    """Return amax by tensor from any of the three forms.

    Raises:
        CacheError: unreadable, malformed, or a value that is negative or not finite.
    """
    return decode(files.read(path, limit=MAX_BYTES, error=CacheError), str(path))


def write(path: Path, amax: Mapping[str, float]) -> None:
    """Write a table: ``.flatbuffers`` and ``.json`` by suffix, anything else as text.

    Raises:
        CacheError: a value that the provider cannot read, or a name that the form cannot hold.
        OutputError: the folder is not writable or the disk is full.
    """
    if not amax:
        raise CacheError("a calibration table needs at least one tensor, got none")
    for tensor, value in amax.items():
        if value != 0 and not SMALLEST <= value <= FLOAT32_MAX:
            raise CacheError(
                f"tensor {tensor!r}: ONNX Runtime reads an amax of 0 or from {SMALLEST:.4g} to "
                f"{FLOAT32_MAX:.4g}, got {value!r}; recalibrate, or set the scale to 0"
            )
    encode = {".flatbuffers": encode_flatbuffers, ".json": encode_json}.get(
        path.suffix, encode_text
    )
    try:
        data = encode(amax)
    except UnicodeEncodeError as error:
        raise CacheError(f"a tensor's name is not valid Unicode: {error}") from error
    files.write(path, data)


def decode(data: bytes, source: str) -> dict[str, float]:
    """Return amax by tensor.

    Args:
        data: a file of any of the three forms.
        source: file name for messages.

    Raises:
        CacheError: as ``read``.
    """
    if data.startswith(b"TRT-"):
        raise CacheError(
            f"{source}: expected a calibration table of ONNX Runtime, got a TensorRT cache"
        )
    if b"\0" in data:  # every flatbuffer has one, in its first offset; text never has
        pairs = _from_flatbuffers(data)
    elif data.lstrip()[:1] == b"{" and data.rstrip()[-1:] == b"}":
        pairs = _from_json(data)
    else:
        pairs = _from_text(data)
    try:
        return _unique(pairs)
    except (ValueError, OverflowError, struct.error) as error:
        raise CacheError(
            f"{source}: not a calibration table of ONNX Runtime: {error}; write it again"
        ) from error


def encode_text(amax: Mapping[str, float]) -> bytes:
    """Return the text form; a value's digits are the shortest that give it back.

    Raises:
        CacheError: a name with a line end or a NUL.
    """
    for tensor in amax:
        if "\n" in tensor or "\0" in tensor:
            raise CacheError(
                f"tensor {tensor!r}: a text table cannot hold a line end or a NUL in a name; "
                "write the '.flatbuffers' form"
            )
    return "".join(f"{tensor} {float(value)!r}\n" for tensor, value in amax.items()).encode()


def encode_json(amax: Mapping[str, float]) -> bytes:
    """Return the form that ``onnxruntime.quantization.calibrate.load_tensors_data`` reads."""

    def number(value: float) -> dict[str, object]:
        return {"data": float(value), "dtype": "float32", "CLS": "numpy.array"}

    ranges = {
        tensor: {"lowest": number(-value), "highest": number(value), "CLS": "TensorData"}
        for tensor, value in amax.items()
    }
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    table = {"CLS": "TensorsData", "data": ranges, "calibration_method": method}
    return json.dumps(table, indent=1, allow_nan=False, ensure_ascii=False).encode()


def encode_flatbuffers(amax: Mapping[str, float]) -> bytes:
    """Return the form that the provider reads.

    Little-endian, everything on a multiple of 4: root offset, the two vtables (their own size,
    their table's size, a position for each field), the root table, the vector of offsets, then
    each KeyValue table with its two strings.  Offsets count from where they stand; a table starts
    with the distance back to its vtable.
    """
    root_vtable, pair_vtable, root, vector = 4, 12, 20, 28
    head = struct.pack("<I", root)
    head += struct.pack("<HHHxx", 6, 8, 4) + struct.pack("<HHHH", 8, 12, 4, 8)
    head += struct.pack("<iI", root - root_vtable, 4) + struct.pack("<I", len(amax))
    entries = vector + 4  # where the offsets in the vector start
    body_at = entries + 4 * len(amax)
    offsets, body = bytearray(), bytearray()
    for index, (tensor, value) in enumerate(amax.items()):
        at = body_at + len(body)
        key, text = _flat_string(tensor), _flat_string(repr(float(value)))
        offsets += struct.pack("<I", at - (entries + 4 * index))
        body += struct.pack("<iII", at - pair_vtable, 8, 4 + len(key)) + key + text
    return head + bytes(offsets + body)


def _flat_string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw + bytes(4 - len(raw) % 4)


def _from_flatbuffers(data: bytes) -> Iterator[tuple[str, float]]:
    vector = _follow(data, _field(data, _follow(data, 0), 4))
    total = 0
    for entry in range(vector + 4, vector + 4 + 4 * _number(data, "<I", vector), 4):
        table = _follow(data, entry)
        key, value = (_string(data, _follow(data, _field(data, table, slot))) for slot in (4, 6))
        total += len(key) + len(value)
        if total > len(data):  # strings that overlap could claim any amount of memory
            raise ValueError("its strings are longer together than the file")
        yield key.decode(), _decimal(key, value)


def _number(data: bytes, code: str, at: int) -> int:
    if at < 0:  # unpack_from would count from the end
        raise ValueError(f"an offset points to byte {at}")
    number: int = struct.unpack_from(code, data, at)[0]
    return number


def _follow(data: bytes, at: int) -> int:
    return at + _number(data, "<I", at)


def _field(data: bytes, table: int, slot: int) -> int:
    vtable = table - _number(data, "<i", table)
    inside = slot < _number(data, "<H", vtable)
    offset = _number(data, "<H", vtable + slot) if inside else 0
    if offset == 0:
        raise ValueError(f"the table at byte {table} lacks a field")
    return table + offset


def _string(data: bytes, at: int) -> bytes:
    length = _number(data, "<I", at)
    text = data[at + 4 : at + 4 + length]
    if len(text) != length:
        raise ValueError(f"the string at byte {at} ends beyond the file")
    return text


def _from_text(data: bytes) -> Iterator[tuple[str, float]]:
    *lines, rest = data.split(b"\n")
    if rest or not lines:
        raise ValueError(f"line {len(lines) + 1} has no line end, so the file is truncated")
    for number, line in enumerate(lines, start=1):
        tensor, space, value = line.removesuffix(b"\r").rpartition(b" ")
        if not space:
            raise ValueError(f"line {number}: expected '<tensor> <value>', got {line[:80]!r}")
        yield tensor.decode(), _decimal(tensor, value)


def _from_json(data: bytes) -> Iterator[tuple[str, float]]:
    table: dict[str, object] = from_json(data)  # the caller saw its opening brace
    if table.get("CLS") == "TensorsData":
        inner = table.get("data")
        table = inner if isinstance(inner, dict) else {}
    for tensor, entry in table.items():
        ends = [entry.get("lowest"), entry.get("highest")] if isinstance(entry, dict) else entry
        if not isinstance(ends, list) or len(ends) != 2:
            raise ValueError(f"tensor {tensor!r}: expected 'lowest' and 'highest', got {entry!r}")
        yield tensor, max(abs(_json_number(tensor, end)) for end in ends)


def _json_number(tensor: str, value: object) -> float:
    if isinstance(value, dict):
        value = value.get("data")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"tensor {tensor!r}: expected a finite number, got {value!r}")
    return float(value)


def _decimal(tensor: bytes, text: bytes) -> float:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(
            f"tensor {tensor.decode()!r}: expected a decimal number that is finite and not "
            f"negative, got {text[:80].decode('utf-8', 'backslashreplace')!r}"
        )
    return float(text)


def _unique(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    amax: dict[str, float] = {}
    for tensor, value in pairs:
        if tensor in amax:
            raise ValueError(f"tensor {tensor!r} stands in it twice")
        if not math.isfinite(value):
            raise ValueError(f"tensor {tensor!r}: its value is too large")
        amax[tensor] = value
    if not amax:
        raise ValueError("it has no tensor")
    return amax
