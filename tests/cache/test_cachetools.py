"""show, diff, verify and convert."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab import cache, cachetools, files, manifest, ort_table
from quantlab.cache import Cache, Header
from quantlab.cachetools import DiffRow
from quantlab.errors import CacheError
from tests.cache.test_manifest import BASIS

OLD, NEW = Header("8.6.1", "EntropyCalibration2"), Header("10.3.0", "MinMaxCalibration")
SCALES = {"input": 0.5, "a:0": struct.unpack(">f", bytes.fromhex("3c010a14"))[0], "zero": 0.0}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A cache without a manifest."""
    path = tmp_path / "calibration.cache"
    cache.write(path, Cache(OLD, SCALES))
    return path


@pytest.fixture
def recorded(source: Path) -> Path:
    """A cache with its manifest."""
    replace(BASIS, cache_sha256=files.sha256(source)).save(manifest.beside(source))
    return source


def test_show_has_a_row_a_line() -> None:
    rows = cachetools.show(Cache(OLD, SCALES))
    assert [(row.tensor, row.scale, row.bits) for row in rows] == [
        ("input", 0.5, "3f000000"),
        ("a:0", SCALES["a:0"], "3c010a14"),
        ("zero", 0.0, "0"),
    ]
    # The scale is rounded to float32, so amax comes back to half a unit in the last place.
    assert [row.amax for row in rows] == pytest.approx([63.5, 2048.5 / 2048, 0.0], rel=2**-24)


def test_diff_names_what_differs() -> None:
    first = Cache(OLD, {"same": 1.0, "gone": 1.0, "twice": 1.0, "was zero": 0.0, "is zero": 1.0})
    second = Cache(NEW, {"new": 3.0, "is zero": 0.0, "was zero": 1.0, "twice": 2.0, "same": 1.0})
    assert cachetools.diff(first, second) == [
        DiffRow("gone", 1.0, None, None),
        DiffRow("twice", 1.0, 2.0, 2.0),
        DiffRow("was zero", 0.0, 1.0, None),
        DiffRow("is zero", 1.0, 0.0, 0.0),
        DiffRow("new", None, 3.0, None),
    ]


TABLES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.0, 1.0, 2.0]))


@given(TABLES, TABLES)
def test_diff_is_empty_for_equal_scales_alone_and_mirrors(
    first: dict[str, float], second: dict[str, float]
) -> None:
    there = cachetools.diff(Cache(OLD, first), Cache(OLD, second))
    back = cachetools.diff(Cache(OLD, second), Cache(OLD, first))
    assert (there == []) == (first == second)
    assert {(row.tensor, row.first, row.second) for row in there} == {
        (row.tensor, row.second, row.first) for row in back
    }


def test_verify_without_a_manifest(source: Path) -> None:
    found = cachetools.verify(source, ["input", "zero", "relu"], ("graph", "weights"))
    assert found.header == OLD
    assert (found.tensors, found.manifest, found.stale) == (3, None, ())
    assert (found.missing, found.unused, found.zero) == (("relu",), ("a:0",), ("zero",))
    assert not found.ok
    assert cachetools.verify(source, ["input"]).ok


def test_verify_with_a_manifest(recorded: Path) -> None:
    same = (BASIS.graph_hash, BASIS.weights_hash)
    for digests in (None, same):
        found = cachetools.verify(recorded, list(SCALES), digests)
        assert found.manifest
        assert found.manifest.samples == BASIS.samples
        assert found.ok
    stale = cachetools.verify(recorded, list(SCALES), (same[0], "d" * 64))
    assert not stale.ok
    assert stale.stale == ("model weights: initializers differ, hash bbbbbbbbbbbb -> dddddddddddd",)


def test_verify_refuses_a_cache_that_its_manifest_does_not_record(recorded: Path) -> None:
    cache.write(recorded, Cache(OLD, {**SCALES, "input": 0.25}))
    with pytest.raises(CacheError, match="truncated, edited or replaced"):
        cachetools.verify(recorded, list(SCALES))


def test_convert_rewrites_the_header(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.cache"
    written = cachetools.convert(source, target, NEW)
    assert (written.kind, written.tensors, written.manifest) == ("TensorRT cache", 3, None)
    head, old_head = b"TRT-100300-MinMaxCalibration\n", b"TRT-8601-EntropyCalibration2\n"
    assert target.read_bytes() == source.read_bytes().replace(old_head, head)
    cachetools.convert(source, target)
    assert target.read_bytes() == source.read_bytes()


def test_convert_repairs_an_odd_header(tmp_path: Path) -> None:
    source, target = tmp_path / "odd.cache", tmp_path / "good.cache"
    source.write_bytes(b"TRT-8XXX-EntropyCalibration2 \r\ninput: 3F000000\r\n")
    with pytest.raises(CacheError, match="'quantlab cache convert'"):
        cachetools.convert(source, target)
    cachetools.convert(source, target, OLD)
    assert target.read_bytes() == b"TRT-8601-EntropyCalibration2\ninput: 3f000000\n"


def test_convert_takes_the_manifest_along(recorded: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.cache"
    assert cachetools.convert(recorded, target, NEW).manifest == tmp_path / "new.json"
    assert manifest.check(target, tmp_path / "new.json", BASIS, list(SCALES)) == ()
    cachetools.convert(recorded, recorded, NEW)
    assert manifest.check(recorded, manifest.beside(recorded), BASIS, list(SCALES)) == ()


def test_convert_does_not_launder_an_edited_cache(recorded: Path, tmp_path: Path) -> None:
    cache.write(recorded, Cache(OLD, {"input": 0.25}))
    with pytest.raises(CacheError, match="truncated, edited or replaced"):
        cachetools.convert(recorded, tmp_path / "new.cache", NEW)
    assert not (tmp_path / "new.cache").exists()


def test_convert_does_not_overwrite_the_manifest(recorded: Path) -> None:
    with pytest.raises(CacheError, match=r"calibration.json is the manifest of"):
        cachetools.convert(recorded, manifest.beside(recorded))
    assert cachetools.verify(recorded, list(SCALES)).ok


@pytest.mark.parametrize("suffix", cachetools.TABLE_SUFFIXES)
def test_convert_to_onnx_runtime_and_back_is_exact(
    source: Path, tmp_path: Path, suffix: str
) -> None:
    table, back = tmp_path / f"table{suffix}", tmp_path / "back.cache"
    written = cachetools.convert(source, table)
    assert (written.kind, written.tensors) == ("ONNX Runtime table", 3)
    assert ort_table.read(table) == {tensor: scale * 127 for tensor, scale in SCALES.items()}
    with pytest.raises(CacheError, match="give the version of the TensorRT"):
        cachetools.convert(table, back)
    cachetools.convert(table, back, OLD)
    assert back.read_bytes() == source.read_bytes()


def test_convert_between_tables_keeps_every_digit(tmp_path: Path) -> None:
    amax = {"x": 0.1, "y": 6.000000000000001}
    ort_table.write(tmp_path / "t.json", amax)
    cachetools.convert(tmp_path / "t.json", tmp_path / "t.flatbuffers")
    assert ort_table.read(tmp_path / "t.flatbuffers") == amax


def test_convert_names_a_bad_source(tmp_path: Path) -> None:
    source = tmp_path / "bad.cache"
    with pytest.raises(CacheError, match=r"cannot read .*bad.cache"):
        cachetools.convert(source, tmp_path / "t.cache", OLD)
    source.write_bytes(b"TRT-8601-EntropyCalibration2\nx: 7fc00000\n")
    with pytest.raises(CacheError, match=r"bad.cache:2: tensor 'x': expected a scale"):
        cachetools.convert(source, tmp_path / "t.flatbuffers")
    source.write_bytes(b"hello\n")
    with pytest.raises(CacheError, match=r"bad.cache: not a calibration table"):
        cachetools.convert(source, tmp_path / "t.cache", OLD)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.cache"]
