"""Fitting arrays to inputs, and the small text files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantlab.datasets.base import Array
from quantlab.datasets.checks import check_fit, class_names, convert
from quantlab.errors import DataError
from quantlab.records import TensorSpec

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = ["bool", *INTEGERS, "float16", "float32", "float64", "complex64"]


def fit(array: Array, spec: TensorSpec) -> Array:
    check_fit(spec, array.dtype, array.shape, "here")
    return convert(array, spec)


@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_what_is_taken_keeps_its_values(data: st.DataObject, stored: str, wanted: str) -> None:
    array: Array = data.draw(arrays(stored, (3,)))
    spec = TensorSpec("x", wanted, ("N", 3))
    kind = {np.dtype(stored).kind, np.dtype(wanted).kind}
    lossless = stored == wanted or (
        (len(kind) == 1 or kind == {"i", "u"}) and np.promote_types(stored, wanted) == wanted
    )
    if not lossless:
        with pytest.raises(DataError, match=f"expected {wanted}, got {stored} in here"):
            fit(array, spec)
        return
    found = fit(array, spec)
    assert found.dtype == wanted
    np.testing.assert_array_equal(found, array)


@given(
    st.lists(st.integers(0, 3), max_size=4),
    st.lists(st.sampled_from([0, 1, 2, 3, "N", None]), max_size=4),
)
def test_shapes_fit_axis_by_axis(shape: list[int], expected: list[int | str | None]) -> None:
    spec = TensorSpec("x", "float32", tuple(expected))
    tails = [expected] if len(shape) == len(expected) else [expected[1:]]
    fits = len(tails[0]) == len(shape) and all(
        isinstance(axis, str) or axis is None or axis == size
        for axis, size in zip(tails[0], shape, strict=True)
    )
    array = np.zeros(shape, np.float32)
    if fits and (expected or not shape):
        assert fit(array, spec).shape == tuple(shape)
    else:
        with pytest.raises(DataError, match="first axis of an array counts samples"):
            fit(array, spec)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4"])
def test_types_that_numpy_lacks_are_named(dtype: str) -> None:
    with pytest.raises(DataError, match=rf"x {dtype}\[N\].*samples of type {dtype}"):
        fit(np.zeros(()), TensorSpec("x", dtype, ("N",)))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog", ("cat", "dog")),
        ("\ufeffcat \r\n\r\n dog\r\n", ("cat", "dog")),
        ("7\n3", ("7", "3")),
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish", None),
        ("0 cat\n1 big dog", ("cat", "big dog")),
        ("1,dog\n0,cat", ("cat", "dog")),
        ('index,name\n0,"cat"\n1,"dog"', ("cat", "dog")),
        ("0: cat\n1: dog", ("cat", "dog")),
        ("0\tcat\n1\tdog", ("cat", "dog")),
        ("zero\n1 one", ("zero", "1 one")),
    ],
)
def test_class_names(text: str, names: tuple[str, ...] | None, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert class_names(path) == (names or tuple(text.splitlines()))


def test_without_a_file_there_are_no_class_names() -> None:
    assert class_names(None) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no class names; write one a line"),
        (b"index,name\n", "no class names"),
        (b"0 cat\n2 dog", "class indices of 2 lines must be 0 to 1, each once"),
        (b"1 cat\n1 dog", "class indices"),
        (b"caf\xe9", r"not UTF-8 text \(byte 3\)"),
    ],
)
def test_bad_class_names(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"names\.txt: .*{message}"):
        class_names(path)


def test_class_names_from_what_is_no_small_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone"):
        class_names(tmp_path / "gone")
    with pytest.raises(DataError, match="cannot read"):
        class_names(tmp_path)
    monkeypatch.setattr("quantlab.datasets.checks.LARGEST_TEXT", 10)
    (tmp_path / "names.txt").write_text("more than ten")
    with pytest.raises(DataError, match=r"names.txt: larger than"):
        class_names(tmp_path / "names.txt")
