"""ONNX Runtime's calibration table, against ONNX Runtime's own reader and writer."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import TensorData, load_tensors_data
from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable
from onnxruntime.quantization.quant_utils import write_calibration_table

from quantlab import cache, cachetools, ort_table
from quantlab.errors import CacheError
from quantlab.qparams import FLOAT32_MAX

NAMES = st.text(
    st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: not name.startswith("TRT-")) | st.sampled_from(["a:0", "a b", "{", "é/漢字"])
AMAX = st.just(0.0) | st.floats(ort_table.SMALLEST, FLOAT32_MAX)
TABLES = st.dictionaries(NAMES, AMAX, min_size=1, max_size=8)
ENCODERS = {
    ".flatbuffers": ort_table.encode_flatbuffers,
    ".json": ort_table.encode_json,
    ".cache": ort_table.encode_text,
}
SAMPLE = {"input": 1.0, "/conv/Conv_output_0": 6.25, "a:0": 0.0}


@given(TABLES, st.sampled_from(sorted(ENCODERS)))
def test_round_trip_is_exact(amax: dict[str, float], suffix: str) -> None:
    again = ort_table.decode(ENCODERS[suffix](amax), "file")
    assert again == amax
    assert list(again) == list(amax)


@given(TABLES)
def test_onnx_runtime_reads_the_flatbuffer(amax: dict[str, float]) -> None:
    table = TrtTable.GetRootAs(ort_table.encode_flatbuffers(amax), 0)
    entries = [table.Dict(i) for i in range(table.DictLength())]
    assert {e.Key().decode(): float(e.Value()) for e in entries} == amax


def test_flatbuffer_fields_are_aligned_and_strings_end_in_nul() -> None:
    for length in range(1, 9):
        data = ort_table.encode_flatbuffers({"n" * length: 1.0})
        assert len(data) % 4 == 0
        start = data.index(b"n" * length)
        assert start % 4 == 0
        assert data[start + length] == 0
        assert struct.unpack_from("<I", data, start - 4) == (length,)


def test_onnx_runtime_reads_the_json(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    ort_table.write(path, SAMPLE)
    data = load_tensors_data(path)
    assert {name: data[name].range_value for name in data} == {
        name: (np.float32(-amax), np.float32(amax)) for name, amax in SAMPLE.items()
    }


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Files as ONNX Runtime writes them; 'signed' lies in [-5, 1]."""
    ranges = {"relu": (0.0, 6.25), "signed": (-5.0, 1.0)}
    table = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    write_calibration_table(table, dir=str(tmp_path))
    return tmp_path


def test_reads_what_onnx_runtime_writes(written: Path) -> None:
    assert ort_table.read(written / "calibration.json") == {"relu": 6.25, "signed": 5.0}
    # These two forms have lost the sign before we see them, as the module says.
    for name in ("calibration.flatbuffers", "calibration.cache"):
        assert ort_table.read(written / name) == {"relu": 6.25, "signed": 1.0}


def read_by_schema(path: Path) -> dict[str, float]:
    """Return what the provider reads: ONNX Runtime's own classes over the file's bytes."""
    table = TrtTable.GetRootAs(path.read_bytes(), 0)
    entries = [table.Dict(i) for i in range(table.DictLength())]
    return {entry.Key().decode(): float(entry.Value()) for entry in entries}


def test_a_converted_table_has_the_larger_of_both_ends(written: Path) -> None:
    """ONNX Runtime itself writes max(highest, lowest), without the sign taken off."""
    assert read_by_schema(written / "calibration.flatbuffers") == {"relu": 6.25, "signed": 1.0}
    cachetools.convert(written / "calibration.json", written / "made.flatbuffers")
    assert read_by_schema(written / "made.flatbuffers") == {"relu": 6.25, "signed": 5.0}


def test_a_table_that_onnx_runtime_wrote_of_negative_tensors_alone_is_refused(
    tmp_path: Path,
) -> None:
    ends = TensorData(lowest=np.array(-5, np.float32), highest=np.array(-1, np.float32))
    write_calibration_table({"t": ends}, dir=str(tmp_path))
    for name in ("calibration.flatbuffers", "calibration.cache"):
        with pytest.raises(CacheError, match=r"tensor 't': .*not negative, got '-1.0'"):
            ort_table.read(tmp_path / name)
    assert ort_table.read(tmp_path / "calibration.json") == {"t": 5.0}


def test_a_tensorrt_cache_becomes_amax_and_not_scales(tmp_path: Path) -> None:
    source = tmp_path / "old.cache"
    source.write_text("TRT-8601-EntropyCalibration2\nimage: 4000890a\na:0: 3c010204\nzero: 0\n")
    cachetools.convert(source, tmp_path / "made.flatbuffers")
    found = read_by_schema(tmp_path / "made.flatbuffers")
    # 255 * 2048.5 / 2048 and 1, to a float32 scale's last place.
    assert found == pytest.approx({"image": 255 * 2048.5 / 2048, "a:0": 1, "zero": 0}, rel=2**-24)
    for tensor, amax in found.items():
        assert np.float32(amax / 127) == np.float32(cache.read(source).scales[tensor])


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [-2, 1.5]}',
        '{"a": {"lowest": -2.0, "highest": 1}}',
        '{"a": {"lowest": {"data": [-2.0], "dtype": "float32"}, "highest": [1.5]}}',
        '{"CLS": "TensorsData", "data": {"a": {"lowest": -2, "highest": 0}}}',
    ],
)
def test_reads_every_json_form(text: str) -> None:
    assert ort_table.decode(text.encode(), "file") == {"a": 2.0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1 has no line end"),
        (b"a 1.0\nb 2", "line 2 has no line end"),
        (b"a 1.0\n\n", "line 2: expected '<tensor> <value>'"),
        (
            b"a -1.0\n",
            "tensor 'a': expected a decimal number that is finite and not negative, got '-1.0'",
        ),
        (b"a nan\n", "tensor 'a': expected a decimal number"),
        (b"a 1_0\n", "tensor 'a': expected a decimal number"),
        (b"a 1e999\n", "tensor 'a': its value is too large"),
        (b"a 1.0\na 1.0\n", "tensor 'a' stands in it twice"),
        (b"\xff 1.0\n", "invalid start byte"),
        (b"TRT-8601-EntropyCalibration2\nx: 1\n", "got a TensorRT cache"),
        (b"{}", "it has no tensor"),
        (b'{"a": 1}', "tensor 'a': expected 'lowest' and 'highest', got 1"),
        (b'{"a": [1, 2, 3]}', "tensor 'a': expected 'lowest' and 'highest'"),
        (b'{"a": {"lowest": 0}}', "tensor 'a': expected a finite number, got None"),
        (b'{"a": [0, true]}', "tensor 'a': expected a finite number, got True"),
        (b'{"a": [NaN, 1]}', "tensor 'a': expected a finite number, got nan"),
        (b'{"a": [0, [1, 2]]}', "tensor 'a': expected a finite number"),
        (b'{"a": [0, 1' + b"0" * 400 + b"]}", "int too large"),
        (b'{"CLS": "TensorsData", "data": 3}', "it has no tensor"),
        (b'{"a" 1}', "expected `:`"),
        (b'{"a":' * 9999 + b"}" * 9999, "recursion limit"),
    ],
)
def test_malformed_tables_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(CacheError) as caught:
        ort_table.decode(data, "table.x")
    assert str(caught.value).startswith("table.x: ")
    assert message in str(caught.value)


@given(st.binary() | st.binary(min_size=8).map(lambda tail: struct.pack("<I", 8) + tail))
def test_any_bytes_decode_or_raise_cache_error(data: bytes) -> None:
    try:
        amax = ort_table.decode(data, "file")
    except CacheError:
        return
    assert all(math.isfinite(value) and value >= 0 for value in amax.values())


@settings(max_examples=300)
@given(st.data(), st.sampled_from(sorted(ENCODERS)))
def test_any_damaged_table_decodes_or_raises_cache_error(data: st.DataObject, suffix: str) -> None:
    damaged = bytearray(ENCODERS[suffix](SAMPLE))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        amax = ort_table.decode(cut, "file")
    except CacheError:
        return
    assert all(math.isfinite(value) and value >= 0 for value in amax.values())


def flat(*, vector: int, entries: list[int], tail: bytes) -> bytes:
    """Return a table whose vector claims ``vector`` entries, at the given absolute positions."""
    head = struct.pack("<IHHHxxHHHHiII", 20, 6, 8, 4, 8, 12, 4, 8, 16, 4, vector)
    offsets = b"".join(struct.pack("<I", at - (32 + 4 * i)) for i, at in enumerate(entries))
    return head + offsets + tail


def test_a_flatbuffer_that_claims_too_much_is_refused_before_memory_is_taken() -> None:
    long_key = b"k" * 4000
    texts = struct.pack("<I", 4000) + long_key + struct.pack("<I", 1) + b"1\0\0\0"
    pair = struct.pack("<iII", 40 - 12, 8, 4 + 4004)
    good = flat(vector=1, entries=[36], tail=b"")
    assert len(good) == 36
    single = good + struct.pack("<iII", 36 - 12, 8, 4 + 4004) + texts
    assert ort_table.decode(single, "file") == {"k" * 4000: 1.0}
    with pytest.raises(CacheError, match="not a calibration table"):
        ort_table.decode(flat(vector=2**32 - 1, entries=[36], tail=b"") + single[36:], "file")
    # Two tables share one string of most of the file's length.
    pair = struct.pack("<iII", 40 - 12, 20, 16 + 4004)
    other = struct.pack("<iII", 52 - 12, 8, 4 + 4004)
    doubled = flat(vector=2, entries=[40, 52], tail=pair + other + texts)
    with pytest.raises(CacheError, match="longer together than the file"):
        ort_table.decode(doubled, "file")


@pytest.mark.parametrize(
    ("at", "code", "number", "message"),
    [
        (0, "<I", 2**31, "not a calibration table"),  # the root lies beyond the end
        (20, "<i", 2**30, "an offset points to byte -"),  # a vtable before the start
        (4, "<H", 4, "lacks a field"),  # a vtable too short for its field
        (8, "<H", 0, "lacks a field"),  # a field left out
        (32, "<I", 2**20, "not a calibration table"),  # an entry beyond the end
    ],
)
def test_bad_offsets_are_refused(at: int, code: str, number: int, message: str) -> None:
    data = bytearray(ort_table.encode_flatbuffers(SAMPLE))
    struct.pack_into(code, data, at, number)
    with pytest.raises(CacheError, match=message):
        ort_table.decode(bytes(data), "file")


def test_a_string_that_ends_beyond_the_file_is_refused() -> None:
    data = bytearray(ort_table.encode_flatbuffers({"name": 1.0}))
    struct.pack_into("<I", data, data.index(b"name") - 4, 5000)
    with pytest.raises(CacheError, match="ends beyond the file"):
        ort_table.decode(bytes(data), "file")


@pytest.mark.parametrize("suffix", ["flatbuffers", "json", "cache", "txt"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    ort_table.write(path, SAMPLE)
    assert ort_table.read(path) == SAMPLE


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e-40, 1e39])
def test_values_that_the_provider_cannot_read_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(CacheError, match=r"tensor 'x': ONNX Runtime reads an amax of 0 or from"):
        ort_table.write(tmp_path / "t.flatbuffers", {"x": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["flatbuffers", "json", "txt"])
def test_names_that_the_form_cannot_hold_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(CacheError, match="not valid Unicode"):
        ort_table.write(tmp_path / f"t.{suffix}", {"\ud800": 1.0})
    with pytest.raises(CacheError, match="at least one tensor"):
        ort_table.write(tmp_path / f"t.{suffix}", {})


@pytest.mark.parametrize("name", ["a\nb", "a\0b"])
def test_a_text_table_cannot_hold_line_ends(tmp_path: Path, name: str) -> None:
    with pytest.raises(CacheError, match=r"cannot hold a line end.*'.flatbuffers'"):
        ort_table.write(tmp_path / "t.txt", {name: 1.0})
    ort_table.write(tmp_path / "t.flatbuffers", {name: 1.0})
    assert ort_table.read(tmp_path / "t.flatbuffers") == {name: 1.0}
