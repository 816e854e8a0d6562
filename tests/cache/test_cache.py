"""The text cache: exact bytes out, and nothing but a whole, well-formed cache in."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantlab import cache
from quantlab.cache import ALGORITHMS, Cache, Header
from quantlab.errors import CacheError
from quantlab.qparams import FLOAT32_MAX, SMALLEST_SCALE
from quantlab.records import TensorThreshold

HEADER = Header("8.6.1", "EntropyCalibration2")
GOLDEN = b"""TRT-8601-EntropyCalibration2
data: 3c000889
input_1:0: 3c010a14
/conv1/Conv_output_0: 4000890a
366: 0
(Unnamed Layer* 64) [Shuffle]_output: 0
"""

NAMES = st.text(
    st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1
) | st.sampled_from(["a:0", "a: 3c010204", ":", " ", "x\r", "éñ/漢字:1", "TRT-8601-X"])
FLOAT32_BITS = st.one_of(
    st.integers(0, 0x7F7FFFFF),  # every finite float32 that is not negative
    st.integers(0, 0x007FFFFF),  # the subnormal ones
    st.sampled_from([0, 1, 0x007FFFFF, 0x00800000, 0x3C010204, 0x7F7FFFFF]),
)


def value_of(bits: int) -> float:
    return float(np.uint32(bits).view(np.float32))


SCALES = st.dictionaries(NAMES, FLOAT32_BITS.map(value_of), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("amax", "text"),
    [
        (1.0, "3c010204"),  # MinMax of a tensor in [0, 1]
        (2048.5 / 2048, "3c010a14"),  # EntropyCalibration2 of the same: half a bin more
        (255 * 2048.5 / 2048, "4000890a"),  # and of pixels
        (0.0, "0"),
    ],
)
def test_published_values(amax: float, text: str) -> None:
    made = cache.from_amax({"x": amax}, HEADER)
    assert cache.serialize(made) == f"TRT-8601-EntropyCalibration2\nx: {text}\n".encode()


def test_golden_file_reads_and_writes_byte_for_byte() -> None:
    read = cache.parse(GOLDEN, "golden")
    assert read.header == HEADER
    assert list(read.scales) == [
        "data",
        "input_1:0",
        "/conv1/Conv_output_0",
        "366",
        "(Unnamed Layer* 64) [Shuffle]_output",
    ]
    assert read.scales["data"] == struct.unpack(">f", bytes.fromhex("3c000889"))[0]
    assert read.scales["366"] == 0.0
    assert cache.serialize(read) == GOLDEN


@given(SCALES, st.sampled_from(ALGORITHMS))
def test_round_trip_is_exact(scales: dict[str, float], algorithm: cache.Algorithm) -> None:
    made = Cache(Header("10.3.0", algorithm), scales)
    data = cache.serialize(made)
    again = cache.parse(data, "file")
    assert again == made
    assert list(again.scales) == list(scales)
    assert cache.serialize(again) == data


@given(FLOAT32_BITS)
def test_hex_is_the_big_endian_bits_without_leading_zeros(bits: int) -> None:
    assert cache.scale_hex(value_of(bits)) == f"{bits:08x}".lstrip("0") or "0"


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, -1.0, -0.0, 1e39])
def test_scales_that_no_cache_can_hold_are_refused_with_the_tensor(scale: float) -> None:
    with pytest.raises(CacheError, match=r"tensor 'relu': scale: expected a finite float32"):
        cache.serialize(Cache(HEADER, {"ok": 1.0, "relu": scale}))


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "\ud800"])
def test_names_that_no_line_can_hold_are_refused(name: str) -> None:
    with pytest.raises(CacheError, match=r"cannot hold|not valid Unicode"):
        cache.serialize(Cache(HEADER, {name: 1.0}))


def test_a_cache_without_tensors_is_refused_both_ways() -> None:
    with pytest.raises(CacheError, match="at least one tensor"):
        cache.serialize(Cache(HEADER, {}))
    with pytest.raises(CacheError, match="no tensor follows the header"):
        cache.parse(b"TRT-8601-EntropyCalibration2\n", "file")


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("5.1.0", 5100),
        ("8.4.1", 8401),
        ("8.6.1", 8601),
        ("9.9.99", 9999),
        ("10.0.0", 100000),
        ("10.3.0", 100300),
        ("10.16.1", 101601),
        ("99.99.99", 999999),
    ],
)
def test_header_numbers(version: str, number: int) -> None:
    assert cache.header_number(version) == number
    line = f"TRT-{number}-MinMaxCalibration"
    assert str(Header(version, "MinMaxCalibration")) == line
    assert Header(version, "MinMaxCalibration").number == number
    assert cache.parse(f"{line}\nx: 1\n".encode(), "f").header.version == version


@pytest.mark.parametrize(
    "version", ["", "8", "8.6", "8.6.1.6", "8.10.0", "0.1.2", "8.06.1", "a.b.c"]
)
def test_versions_that_no_header_number_can_hold(version: str) -> None:
    with pytest.raises(CacheError, match=r"expected major.minor.patch such as '8.6.1', got"):
        cache.header_number(version)


def test_header_for_an_installed_library() -> None:
    assert str(cache.header_for("10.3.0.26")) == "TRT-100300-EntropyCalibration2"
    assert str(cache.header_for("8.6.1", "MinMaxCalibration")) == "TRT-8601-MinMaxCalibration"
    with pytest.raises(CacheError, match=r"TensorRT 11.1.0 reads no calibration cache.*Q/DQ"):
        cache.header_for("11.1.0.106")
    with pytest.raises(CacheError, match="reads no calibration cache"):
        cache.header_for("1.7.1.116")
    with pytest.raises(CacheError, match="unknown calibration algorithm 'Entropy'; choose from"):
        cache.header_for("8.6.1", "Entropy")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", r"file:3: expected '<tensor>: <1 to 8 hex digits>', got ''"),
        (b"relu 3c010204", r"file:3: expected"),
        (b"relu:3c010204", r"file:3: expected"),
        (b"relu:  3c010204", r"file:3: expected"),
        (b": 3c010204", r"file:3: expected"),
        (b"relu: ", r"file:3: expected"),
        (b"relu: 3c010204 ", r"file:3: expected"),
        (b"relu: 3c0102040", r"file:3: expected"),
        (b"relu: 0x3c0102", r"file:3: expected"),
        (b"relu: 3g", r"file:3: expected"),
        (b"re\0lu: 3c", r"file:3: expected"),
        (b"\xff\xfe: 3c010204", r"file:3: expected a tensor's name in UTF-8"),
        (b"relu: 7fc00000", r"file:3: tensor 'relu': expected .* got nan \(7fc00000\)"),
        (b"relu: 7f800000", r"file:3: tensor 'relu': expected .* got inf"),
        (b"relu: bc010204", r"file:3: tensor 'relu': expected .* got -0.0078"),
        (b"relu: 80000000", r"file:3: tensor 'relu': expected .* got -0.0"),
        (b"data: 3c010204", r"file:3: tensor 'data' has a scale already, on line 2"),
        (b"x" * 500, r"file:3: expected .*x\.\.\.'; repair the line or recalibrate"),
    ],
)
def test_bad_lines_are_named(line: bytes, message: str) -> None:
    data = b"TRT-8601-EntropyCalibration2\ndata: 3c000889\n" + line + b"\nlast: 1\n"
    with pytest.raises(CacheError, match=message) as caught:
        cache.parse(data, "file")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "line",
    [
        b"TRT-8XXX-EntropyCalibration2",
        b"TRT-8601-EntropyCalibration2 ",
        b"TRT-8601-Entropy",
        b"TRT-10300-MinMaxCalibration",
        b"TRT-08601-MinMaxCalibration",
        b"TRT-",
        b"TRT-\xff",
    ],
)
def test_odd_headers_are_refused_unless_another_stands_in(line: bytes) -> None:
    data = line + b"\ndata: 3c000889\n"
    with pytest.raises(CacheError, match=r"^file:1: expected 'TRT-.*'quantlab cache convert'"):
        cache.parse(data, "file")
    assert cache.parse(data, "file", header=HEADER).header == HEADER


@pytest.mark.parametrize("data", [b"", b"\n", b"data 1.0\n", b"TR", b"\x89PNG\r\n\x1a\n", b"{}"])
def test_what_is_no_cache_at_all(data: bytes) -> None:
    for header in (None, HEADER):
        with pytest.raises(CacheError, match=r"^file:1: .*this is no TensorRT calibration cache"):
            cache.parse(data, "file", header=header)


def test_line_ends_case_and_zeros_are_read_leniently() -> None:
    crlf = GOLDEN.replace(b"\n", b"\r\n").replace(b"3c000889", b"3C000889")
    assert cache.parse(crlf.replace(b": 0\r", b": 00000000\r"), "file") == cache.parse(GOLDEN, "f")


@given(SCALES, st.data())
def test_every_truncation_is_detected(scales: dict[str, float], data: st.DataObject) -> None:
    """Inside a line the parser sees it; at a line's end a tensor is missing, which require sees."""
    whole = cache.serialize(Cache(HEADER, scales))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(CacheError):
        cache.require(cache.parse(cut, "file"), scales, "file")


def test_a_cut_inside_a_line_names_the_line() -> None:
    with pytest.raises(CacheError, match=r"file:1: the last line has no line end.*truncated"):
        cache.parse(GOLDEN[:10], "file")
    with pytest.raises(CacheError, match="file:2: the last line has no line end"):
        cache.parse(GOLDEN[:33], "file")
    with pytest.raises(CacheError, match="file:6: the last line has no line end"):
        cache.parse(GOLDEN[:-1], "file")


@given(st.binary() | st.binary().map(lambda tail: b"TRT-8601-EntropyCalibration2\n" + tail))
@example(b"TRT-8601-EntropyCalibration2\n\xff: 1\n")
def test_any_bytes_parse_or_raise_cache_error(data: bytes) -> None:
    try:
        made = cache.parse(data, "file")
    except CacheError:
        return
    assert cache.parse(cache.serialize(made), "file") == made


@given(st.data())
def test_any_damaged_cache_parses_or_raises_cache_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOLDEN) - 1))
    damaged = GOLDEN[:at] + data.draw(st.binary(max_size=3)) + GOLDEN[at + 1 :]
    try:
        made = cache.parse(damaged, "file")
    except CacheError:
        return
    assert all(math.isfinite(scale) and scale >= 0 for scale in made.scales.values())


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    made = Cache(HEADER, {"x": 0.5, "y": 0.0})
    cache.write(path, made)
    assert path.read_bytes() == b"TRT-8601-EntropyCalibration2\nx: 3f000000\ny: 0\n"
    assert cache.read(path) == made
    with pytest.raises(CacheError, match=r"cannot read .*none.cache: No such file"):
        cache.read(tmp_path / "none.cache")
    with pytest.raises(CacheError, match="cannot read"):
        cache.read(tmp_path)
    with path.open("ab") as file:
        file.truncate(cache.MAX_BYTES + 1)
    with pytest.raises(CacheError, match="expected at most 16777216 bytes"):
        cache.read(path)


def test_a_cache_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    cache.write(path, Cache(HEADER, {"x": 0.5}))
    with pytest.raises(CacheError):
        cache.write(path, Cache(HEADER, {"x": -0.5}))
    assert cache.read(path).scales == {"x": 0.5}


def threshold(tensor: str, value: float) -> TensorThreshold:
    return TensorThreshold(tensor, amax=value, threshold=value, method="mse", minimum=0.0)


def test_thresholds_become_the_scales_of_the_qdq_model() -> None:
    thresholds = {name: threshold(name, value) for name, value in [("a", 6.0), ("b", 0.1)]}
    made = cache.from_thresholds(thresholds | {"zero": threshold("zero", 0.0)}, HEADER)
    assert made.scales == {"a": thresholds["a"].scale, "b": thresholds["b"].scale, "zero": 0.0}
    assert list(made.scales) == ["a", "b", "zero"]


@given(st.floats(0, 1e36))
def test_a_scale_is_the_nearest_float32_of_amax_over_127(amax: float) -> None:
    scale = cache.from_amax({"x": amax}, HEADER).scales["x"]
    assert scale == (max(float(np.float32(amax / 127)), SMALLEST_SCALE) if amax else 0.0)
    assert cache.parse(cache.serialize(Cache(HEADER, {"x": scale})), "f").scales == {"x": scale}


@given(st.floats(0, FLOAT32_MAX))
def test_the_cache_and_the_qdq_model_have_one_scale(amax: float) -> None:
    thresholds = {"x": threshold("x", amax)}
    scale = cache.from_thresholds(thresholds, HEADER).scales["x"]
    assert scale == (thresholds["x"].scale if amax else 0.0)


@pytest.mark.parametrize("amax", [-1.0, math.nan, math.inf, 1e39])
def test_thresholds_that_give_no_scale_are_refused(amax: float) -> None:
    with pytest.raises(CacheError, match=r"tensor 'x': expected a threshold from 0 to 3\.403e\+38"):
        cache.from_amax({"x": amax}, HEADER)


@given(SCALES)
def test_amax_is_127_scales_exactly_and_comes_back(scales: dict[str, float]) -> None:
    amax = cache.to_amax(Cache(HEADER, scales))
    assert all(amax[tensor] / 127 == scale for tensor, scale in scales.items())
    usable = {tensor: scale for tensor, scale in scales.items() if given_out(scale)}
    again = cache.from_amax({tensor: amax[tensor] for tensor in usable}, HEADER)
    assert again.scales == usable


@given(SCALES)
def test_a_cache_as_thresholds_is_never_unsigned(scales: dict[str, float]) -> None:
    found = cache.thresholds_from(Cache(HEADER, scales))
    for tensor, t in found.items():
        assert (t.tensor, t.method, t.amax) == (tensor, "cache", t.threshold)
        assert t.threshold == scales[tensor] * 127
        assert t.minimum == -t.threshold
        if scales[tensor] and given_out(scales[tensor]):
            assert t.scale == scales[tensor]


def given_out(scale: float) -> bool:
    """Whether ``qparams.scale_of`` gives it out: beyond these ends it clamps."""
    return scale == 0 or SMALLEST_SCALE <= scale <= FLOAT32_MAX / 128


def test_require_names_what_is_missing() -> None:
    made = Cache(HEADER, {"a": 1.0, "b": 1.0})
    cache.require(made, ["a", "b"], "x.cache")
    cache.require(made, [], "x.cache")
    with pytest.raises(
        CacheError, match=r"x.cache: no scale for 2 of the model's 3 tensors: 'c', 'd'"
    ):
        cache.require(made, ["a", "c", "d"], "x.cache")
    many = [f"t{i}" for i in range(30)]
    with pytest.raises(CacheError, match=r"'t0', .*'t9' and 20 more; recalibrate"):
        cache.require(made, ["a", *many], "x.cache")
    with pytest.raises(
        CacheError, match=r"none of the model's 30 tensors, but for 'a', 'b'; .*another"
    ):
        cache.require(made, many, "x.cache")
