"""Npz reads what NumPy writes, in every form of it, and refuses everything else."""

import io
import os
import struct
import zipfile
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.datasets import npz as module
from quantlab.datasets.base import Array
from quantlab.datasets.batching import batches
from quantlab.datasets.npz import Npz
from quantlab.errors import DataError
from quantlab.records import TensorSpec
from tests.datasets.files import (
    IMAGE,
    MASK,
    TOKENS,
    Save,
    npy,
    random,
    read,
    savez,
    savez_compressed,
    stacked,
    write_zip,
)

X = TensorSpec("x", "float32", ("N", 2))
SAVES = [savez, savez_compressed]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize(
    ("spec", "stored"),
    [
        (IMAGE, random((5, 1, 4, 3))),
        (IMAGE, random((5, 1, 4, 3), "float16")),
        (IMAGE, random((5, 1, 4, 3)).astype(">f4")),
        (IMAGE, random((10, 1, 4, 3))[::2]),
        (TensorSpec("image", "uint8", ("N", 4, 3, 1)), random((5, 4, 3, 1), "uint8")),
        (TOKENS, random((5, 9), "int64")),
        (TOKENS, random((5, 9), "uint8")),
        (TOKENS, random((5, 0), "int64")),
        (MASK, random((5, 9), "bool")),
        (TensorSpec("t", "float64", ()), random((5,), "float64")),
        (TensorSpec("t", "float32", ("N",)), random((5,))),
        (TensorSpec("h", "float32", (2, 1, 3)), random((5, 2, 1, 3))),
        (TensorSpec("dotted.name/1", "float32", (None, None)), random((5, 2))),
        (TensorSpec("s", "object", ("N", 2)), np.array([["cat", "dog"]] * 5)),
    ],
    ids=str,
)
def test_what_numpy_saves_is_read(
    save: Save, spec: TensorSpec, stored: Array, tmp_path: Path
) -> None:
    save(tmp_path / "d.npz", **{spec.name: stored, "labels": np.arange(5, dtype=np.uint8)})
    samples = read(Npz(tmp_path / "d.npz"), spec)
    dtype = stored.dtype if spec.dtype == "object" else np.dtype(spec.dtype)
    found = np.stack([sample.arrays[spec.name] for sample in samples])
    np.testing.assert_array_equal(found, stored.astype(dtype), strict=True)
    assert [int(sample.label) for sample in samples if sample.label is not None] == [0, 1, 2, 3, 4]
    assert samples[3].origin == "d.npz[3]"


@pytest.mark.parametrize("save", SAVES)
def test_samples_of_different_shapes(save: Save, tmp_path: Path) -> None:
    lengths = [3, 5, 3, 0, 5]
    arrays = {
        f"{name}.{at:05}": random((1, n), dtype, at)
        for at, n in enumerate(lengths)
        for name, dtype in (("tokens", "int64"), ("mask", "bool"))
    }
    labels = {f"labels.{at:05}": np.array([at]) for at in range(5)}
    save(tmp_path / "d.npz", **arrays, **labels)
    with Npz(tmp_path / "d.npz").open((TOKENS, MASK)) as samples:
        assert len(samples) == 5
        found = list(batches(samples, (TOKENS, MASK), size=2))
    assert [list(batch.indices) for batch in found] == [[0, 2], [1, 4], [3]]
    for batch in found:
        assert batch.labels is not None
        assert list(batch.labels) == list(batch.indices)
        for row, at in enumerate(batch.indices):
            for name in ("tokens", "mask"):
                stored = arrays[f"{name}.{at:05}"][0]
                np.testing.assert_array_equal(batch.arrays[name][row], stored, strict=True)


def test_one_array_of_labels_serves_samples_of_different_shapes(tmp_path: Path) -> None:
    parts = {f"tokens.{at}": random((1, at), "int64") for at in range(12)}  # .10 is after .9
    savez(tmp_path / "d.npz", classes=np.arange(12) % 3, **parts)
    samples = read(Npz(tmp_path / "d.npz", labels="classes"), TOKENS)
    assert [sample.arrays["tokens"].shape for sample in samples] == [(at,) for at in range(12)]
    assert [int(sample.label) for sample in samples if sample.label is not None] == [0, 1, 2] * 4


def test_an_exact_name_that_looks_numbered_is_an_input_of_its_own(tmp_path: Path) -> None:
    inputs = [TensorSpec(name, "float32", ("N", 2)) for name in ("input", "input.1")]
    arrays = {"input": random((3, 2)), "input.1": random((3, 2), seed=1)}
    savez(tmp_path / "d.npz", **arrays)
    samples = read(Npz(tmp_path / "d.npz"), *inputs)
    for name, stored in arrays.items():
        np.testing.assert_array_equal(np.stack([each.arrays[name] for each in samples]), stored)
    assert [sample.label for sample in samples] == [None] * 3


def test_an_input_named_labels_is_an_input(tmp_path: Path) -> None:
    savez(tmp_path / "d.npz", labels=random((3, 2)))
    (sample, *_) = read(Npz(tmp_path / "d.npz"), TensorSpec("labels", "float32", ("N", 2)))
    assert sample.label is None


def test_target_arrays_are_labels_too(tmp_path: Path) -> None:
    maps = random((3, 4, 4), "uint8")
    savez(tmp_path / "d.npz", x=random((3, 2)), labels=maps)
    found = [np.asarray(sample.label) for sample in read(Npz(tmp_path / "d.npz"), X)]
    np.testing.assert_array_equal(np.stack(found), maps, strict=True)


def test_an_uncompressed_file_is_mapped_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    savez(path, x=np.zeros((100, 2), np.float32))
    with Npz(path).open([X]) as samples:
        row = next(iter(samples)).arrays["x"]
        base: Any = row
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)


def test_a_sparse_file_larger_than_memory_opens(tmp_path: Path) -> None:
    """A member of 256 GiB of zeros costs no memory until it is read, and its tail is reachable."""
    header = io.BytesIO()
    shape = (1 << 35, 2)
    np.lib.format.write_array_header_2_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    size = len(header.getvalue()) + (1 << 38)
    zip64 = struct.pack("<2H2Q", 1, 16, size, size)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, *[0xFFFFFFFF] * 2, 5, 20)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, *[0xFFFFFFFF] * 2, 5, 20, 0, 0, 0, 0, 0
    )
    path = tmp_path / "d.npz"
    with path.open("wb") as file:
        file.write(local + b"x.npy" + zip64 + header.getvalue())
        file.seek(1 << 38, os.SEEK_CUR)
        at = file.tell()
        tail = central + b"x.npy" + zip64
        file.write(tail)
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(tail), at))
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, at + len(tail), 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0))
    with Npz(path).open([X]) as samples:
        assert len(samples) == 1 << 35
        assert next(iter(samples)).arrays["x"].tolist() == [0, 0]
        (last,) = samples.part((1 << 35) - 1, 1 << 35)
        assert last.origin == f"d.npz[{(1 << 35) - 1}]"


def test_fortran_order(tmp_path: Path) -> None:
    stored = np.asfortranarray(random((5, 1, 4, 3)))
    savez(tmp_path / "d.npz", image=stored)
    with Npz(tmp_path / "d.npz").open([IMAGE]) as samples:
        found = list(batches(samples, [IMAGE], size=2))
    np.testing.assert_array_equal(stacked(found, "image"), stored)
    savez_compressed(tmp_path / "d.npz", image=stored)
    with pytest.raises(DataError, match=r"Fortran order.*numpy.ascontiguousarray"):
        read(Npz(tmp_path / "d.npz"), IMAGE)


def test_compressed_rows_come_through_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantlab.datasets.columns.BLOCK", 20)
    stored = random((7, 2))
    savez_compressed(tmp_path / "d.npz", x=stored)
    with Npz(tmp_path / "d.npz").open([X]) as samples:
        for start, stop in combinations(range(8), 2):
            found = [sample.arrays["x"] for sample in samples.part(start, stop)]
            np.testing.assert_array_equal(np.stack(found), stored[start:stop])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"input0": random((3, 2))},
            r"one array, 'input0', and the model has one input, 'x'; rename.*\*\*\{'x': array\}",
        ),
        (
            {"a": random((3, 2)), "b": random((3,))},
            r"no array for input x float32\[N, 2\].*'a', 'b'",
        ),
        ({f"a{at}": np.zeros(1) for at in range(10)}, "and 2 more"),
        ({"x": random((3, 2), "float64")}, r"expected float32, got float64 in d.npz: x.*astype"),
        ({"x": random((3, 2), "uint8")}, r"got uint8.*/ 255"),
        ({"x": random((3, 3))}, r"expected samples of shape \(2\), got \(3\) in d.npz: x"),
        ({"x": random((3, 2)), "labels": np.arange(4)}, "different numbers.*x 3, labels 4"),
        (
            {"x": random((3, 2)), "labels": np.ones(3)},
            r"label of d.npz\[0\].*got float64.*\(n, 1\)",
        ),
        (
            {"x": random((3, 2)), "labels": np.array([0, 1, -1])},
            r"label of d.npz\[2\].*>= 0, got -1",
        ),
        ({"x": random((3, 2)), "labels": np.full(3, 1 << 63, "u8")}, "class index >= 0, got 9223"),
        (
            {"x": random((3, 2)), "labels": np.array(["a", "b", "c"])},
            "integer class index, got <U1",
        ),
        ({"x": np.float32(1)}, r"first axis that counts samples, got shape \(\)"),
        ({"x.0": random((1, 2)), "x.2": random((1, 2))}, r"expected x.00001, found x.2"),
        ({"x.0": random((1, 2)), "x.00": random((1, 2))}, r"expected x.00001, found x.0"),
        ({"x.1": random((1, 2))}, "expected x.00000, found x.1"),
        ({"x.0": random((2, 2))}, r"d.npz: x.0: expected a first axis of 1"),
        ({"x.0": random((1, 2)), "x.1": random((1, 3))}, r"got \(3\) in d.npz: x.1"),
    ],
)
@pytest.mark.parametrize("save", SAVES)
def test_what_does_not_fit_is_refused(
    save: Save, arrays: dict[str, Array], message: str, tmp_path: Path
) -> None:
    save(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(Npz(tmp_path / "d.npz"), X)


def test_labels_that_were_asked_for_by_name_must_be_there(tmp_path: Path) -> None:
    savez(tmp_path / "d.npz", x=random((3, 2)))
    assert read(Npz(tmp_path / "d.npz"), X)[0].label is None
    with pytest.raises(DataError, match="no labels 'classes'; it holds 'x'"):
        read(Npz(tmp_path / "d.npz", labels="classes"), X)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_pickles_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.empty((3, 2), object)
    objects[:] = Bomb()
    for name in ("x", "labels"):
        arrays = {"x": random((3, 2)), name: objects}
        savez("d.npz", **arrays)
        with pytest.raises(DataError, match=f"d.npz: {name}: holds object, which is not loaded"):
            read(Npz(Path("d.npz")), X)
    assert not Path("exploded").exists()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    raw = text.encode()
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(raw))
    return b"\x93NUMPY" + version + size + raw


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an array that NumPy wrote"),
        (b"\x93NUMPY\x01", "not an array that NumPy wrote"),
        (b"plain text, not an array", "not an array that NumPy wrote"),
        (header(GOOD) + bytes(23), r"its header says \(3, 2\) float32, \d+ bytes, but it has"),
        (header(GOOD) + bytes(25), "its header says"),
        (header(GOOD.replace("(3, 2)", "(3, 1 << 40)")), "not an array that NumPy wrote"),
        (header(GOOD.replace("3, 2", "1000000000000, 2")), "its header says"),
        (header(GOOD.replace("3, 2", f"{2**62}, {2**62}, 0")), "first axis that counts"),
        (header(GOOD.replace("3, 2", "-3, -2")) + bytes(24), "first axis that counts"),
        (header(GOOD.replace("3, 2", "3.0, 2")), "not an array that NumPy wrote"),
        (header(GOOD.replace("<f4", "nonsense")), "not an array that NumPy wrote"),
        (header(GOOD.replace("'<f4'", "[('a', '<f4')]")), "which is not loaded"),
        (header(GOOD.replace("<f4", "<U0")), "which is not loaded"),
        (header("__import__('os').mkdir('exploded')"), "not an array that NumPy wrote"),
        (header("(" * 5000), "not an array that NumPy wrote"),
        (header("{" + "'a': 1," * 20000, b"\x02\x00"), "not an array that NumPy wrote"),
        (header(GOOD, b"\x03\x00"), "structured"),
        (header(GOOD, b"\x09\x09"), "not an array that NumPy wrote|structured"),
    ],
)
def test_members_that_numpy_did_not_write_are_refused(
    *, data: bytes, message: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "d.npz", [("x.npy", data)], packed=packed)
    with pytest.raises(DataError, match=message):
        read(Npz(tmp_path / "d.npz"), X)
    assert not Path("exploded").exists()


def test_headers_of_python_2_are_read(tmp_path: Path) -> None:
    data = header(GOOD.replace("(3, 2)", "(3L, 2L)")) + random((3, 2)).tobytes()
    write_zip(tmp_path / "d.npz", [("x.npy", data)])
    assert len(read(Npz(tmp_path / "d.npz"), X)) == 3


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    data = npy(random((3, 2)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(tmp_path / "d.npz", [("x.npy", data), ("x.npy", data)])
    with pytest.raises(DataError, match="two arrays are named 'x'"):
        read(Npz(tmp_path / "d.npz"), X)


def test_a_compressed_sample_beyond_the_limit_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantlab.datasets.columns.LARGEST_ROW", 1000)
    savez_compressed(tmp_path / "d.npz", tokens=np.zeros((1, 126), np.int64))
    with pytest.raises(DataError, match="a sample of 1008 bytes; at most 1000"):
        read(Npz(tmp_path / "d.npz"), TOKENS)


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", random((3, 2)))
    with pytest.raises(DataError, match=r"not a zip file; write it with numpy.savez"):
        read(Npz(tmp_path / "d.npy"), X)
    with pytest.raises(DataError, match="Is a directory"):
        read(Npz(tmp_path), X)


def test_other_compressions_and_encryption_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", npy(random((3, 2))))
    with pytest.raises(DataError, match="NumPy does not write"):
        read(Npz(tmp_path / "d.npz"), X)
    data = bytearray(write_zip(tmp_path / "d.npz", [("x.npy", npy(random((3, 2))))]).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "d.npz").write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        read(Npz(tmp_path / "d.npz"), X)


def test_damaged_compressed_data_are_found(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "d.npz", [("x.npy", npy(random((300, 2))))], packed=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"d.npz: x: damaged"):
        read(Npz(path), X)


def test_a_stored_member_that_ends_behind_the_file_is_refused(tmp_path: Path) -> None:
    data = header(GOOD.replace("3, 2", "3000, 2")) + bytes(24)
    whole = bytearray(write_zip(tmp_path / "d.npz", [("x.npy", data)]).read_bytes())
    sizes = whole.index(b"PK\1\2") + 20
    claimed = len(data) - 24 + 3000 * 2 * 4
    whole[sizes : sizes + 8] = struct.pack("<2L", claimed, claimed)
    (tmp_path / "d.npz").write_bytes(whole)
    # Newer zipfile modules see that the member would overlap the directory of the archive.
    with pytest.raises(DataError, match=r"d.npz: x: (truncated; .* needs|damaged; Overlapped)"):
        read(Npz(tmp_path / "d.npz"), X)


@pytest.mark.parametrize("save", SAVES)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_damage_is_read_or_refused(save: Save, data: st.DataObject, tmp_path: Path) -> None:
    """No damage to a file leads to another exception than DataError."""
    path = tmp_path / "d.npz"
    save(path, x=np.ones((9, 2), np.float32))
    damaged = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.none() | st.integers(0, len(damaged)))])
    with suppress(DataError):
        assert all(sample.arrays["x"].shape == (2,) for sample in read(Npz(path), X))


def test_headers_are_limited_by_numpy_before_they_are_parsed() -> None:
    with pytest.raises(DataError, match="max_header_size"):
        module._header(io.BytesIO(header("{" + "'a': 1," * 20000, b"\x02\x00")), "x")
