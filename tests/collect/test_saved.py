"""Histograms on disk come back equal, in equal bytes, or as one clear error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.collect.saved import load, save
from quantlab.errors import CalibrationError
from quantlab.histogram import Histogram, empty
from tests.strategies import histograms


@given(st.lists(histograms(), max_size=3))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, parts: list[Histogram]) -> None:
    folder = tmp_path_factory.mktemp("histograms")
    saved = {f"tensor:{i}/x": part for i, part in enumerate(parts)}
    saved = {
        name: Histogram(name, *[getattr(part, f) for f in Histogram.__slots__[1:]])
        for name, part in saved.items()
    }
    save(folder / "a.npz", saved)
    save(folder / "b.npz", saved)
    assert load(folder / "a.npz") == saved
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


@pytest.mark.parametrize("kept", [0, 10, 200, -1])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "h.npz"
    save(path, {"x": empty("x")})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CalibrationError, match=r"h\.npz.*run 'quantlab calibrate' again"):
        load(path)


def test_another_files_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.npz"
    np.savez(
        path,
        tensor=np.array(["x"]),
        counts=np.zeros((1, 7), np.int64),
        exponent=np.zeros(1),
        limits=np.zeros((1, 2)),
        special=np.zeros((1, 3)),
        first=np.zeros((1, 2)),
    )
    with pytest.raises(CalibrationError, match=r"expected int64 counts of shape \(1, 4096\)"):
        load(path)


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "h.npz"
    np.savez(path, tensor=np.array([object()], dtype=object))
    with pytest.raises(CalibrationError):
        load(path)
