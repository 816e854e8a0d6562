"""The batches' maxima come back equal, in equal bytes for any order, or as one clear error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.collect.batch_amax import attach, load, save
from quantlab.errors import CalibrationError
from quantlab.histogram import from_array

NAMES = ("relu:0", "a/b c")
FIRST = np.array([0, 8, 16], np.int64)
AMAX = np.array([[1.0, 0.0], [-np.inf, 2.5], [3.0, 1e-40]])


@given(st.permutations(range(3)))
def test_batches_come_back_in_the_samples_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("amax")
    save(folder / "a.npz", NAMES, FIRST, AMAX)
    save(folder / "b.npz", NAMES, FIRST[order], AMAX[order])
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()
    found = load(folder / "b.npz")
    assert found.tensors == NAMES
    assert found.first.tolist() == FIRST.tolist()
    assert found.amax.tolist() == AMAX.tolist()


def test_each_histogram_gets_its_column_and_stays_equal(tmp_path: Path) -> None:
    save(tmp_path / "m.npz", NAMES, FIRST, AMAX)
    histograms = {name: from_array(name, np.ones(4)) for name in reversed(NAMES)}
    found = attach(histograms, tmp_path / "m.npz")
    assert list(found) == list(histograms)
    assert found == histograms  # the maxima are no part of what the data decide
    for column, name in enumerate(NAMES):
        kept = found[name].batch_amax
        assert kept is not None
        assert kept.tolist() == AMAX[:, column].tolist()


def test_a_tensor_without_maxima_is_named(tmp_path: Path) -> None:
    save(tmp_path / "m.npz", NAMES, FIRST, AMAX)
    histograms = {"other": from_array("other", np.ones(4))}
    with pytest.raises(CalibrationError, match=r"1 of 1 tensors.*'other'.*calibrate' again"):
        attach(histograms, tmp_path / "m.npz")


@pytest.mark.parametrize("kept", [0, 10, 200, -1])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "m.npz"
    save(path, NAMES, FIRST, AMAX)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CalibrationError, match=r"m\.npz.*run 'quantlab calibrate' again"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"m\.npz.*No such file.*calibrate' again"):
        load(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("first", "amax", "message"),
    [
        (FIRST, AMAX[:, :1], r"expected float64 maxima of shape \(3, 2\), got float64 \(3, 1\)"),
        (FIRST, AMAX.astype(np.float32), "got float32"),
        (FIRST, np.full((3, 2), np.nan), "from 0 or -inf"),
        (FIRST, np.full((3, 2), np.inf), "from 0 or -inf"),
        (FIRST, np.full((3, 2), -1.0), "from 0 or -inf"),
        (np.array([0, 8, 8]), AMAX, "each batch once"),
        (np.array([8, 0, 16]), AMAX, "each batch once"),
    ],
)
def test_other_numbers_are_refused(
    tmp_path: Path, first: NDArray[np.int64], amax: NDArray[np.float64], message: str
) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, tensor=np.array(NAMES), first=first, amax=amax)
    with pytest.raises(CalibrationError, match=message):
        load(path)
