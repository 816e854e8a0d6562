"""Collecting on the CPU: exact, one batch in memory, errors in quantlab's words."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from quantlab.collect.host import check_finite, collect
from quantlab.datasets.base import Batch
from quantlab.engines import ort_session
from quantlab.engines.base import Array
from quantlab.errors import CalibrationError, EngineError
from quantlab.graph.model import save
from quantlab.graph.tap import tap
from quantlab.histogram import from_array, merge
from tests.graph.cases import prepared
from tests.graph.running import run
from tests.models import Net, residual

TENSORS = ("add0_out", "x")


@pytest.fixture
def tapped(tmp_path: Path) -> Path:
    save(tap(prepared(residual(), tmp_path), TENSORS), tmp_path / "tapped.onnx")
    return tmp_path / "tapped.onnx"


def images(samples: int) -> Array:
    return np.random.default_rng(0).normal(size=(samples, 1, 8, 8)).astype(np.float32)


def cut(x: Array, size: int) -> Iterator[Batch]:
    for start in range(0, len(x), size):
        part = x[start : start + size]
        yield Batch({"x": part}, None, np.arange(start, start + len(part)))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_batch_size_does_not_matter(size: int, tapped: Path) -> None:
    x = images(7)
    found = collect(tapped, cut(x, size), TENSORS, threads=2)
    assert list(found.histograms) == list(TENSORS)
    assert found.histograms["x"] == from_array("x", x)
    assert found.histograms == collect(tapped, cut(x, 2), TENSORS, threads=1).histograms
    assert (found.how.samples, found.how.batch) == (7, size)


def test_histograms_are_of_what_the_model_computes(tapped: Path) -> None:
    x = images(4)
    seen = [run(tapped, {"x": part})["add0_out"] for part in (x[:2], x[2:])]
    expected = merge([from_array("add0_out", part) for part in seen])
    found = collect(tapped, cut(x, 2), TENSORS).histograms["add0_out"]
    # ONNX Runtime fuses here and not there: sums round otherwise, so bins may differ by a few.
    assert found.total == expected.total
    assert found.amax == pytest.approx(expected.amax, rel=1e-5)


def test_activations_of_a_batch_are_gone_before_the_next_is_read(
    tapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Array]] = []

    def watched(
        opened: object, outputs: Sequence[str], inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        values = ort_session.run(opened, outputs, inputs)
        held.extend(weakref.ref(value) for value in values.values())
        return values

    def batches() -> Iterator[Batch]:
        for batch in cut(images(3), 1):
            assert all(known() is None for known in held)
            yield batch

    monkeypatch.setattr("quantlab.collect.host.run", watched)
    collect(tapped, batches(), TENSORS, threads=1)
    assert len(held) == 3


def test_a_batch_that_cannot_be_run_names_the_node(tmp_path: Path) -> None:
    net = Net()
    shape = net.weight("shape", np.array([-1, 64]))
    x = net.add("Reshape", [net.input(shape=("N", "C")), shape], name="reshape")
    save(tap(prepared(net.finish(net.gemm(x, (64, 16))), tmp_path), [x]), tmp_path / "m.onnx")
    batch = Batch({"x": np.ones((2, 3), np.float32)}, None, np.arange(2))
    with pytest.raises(EngineError, match="'reshape'"):
        collect(tmp_path / "m.onnx", [batch], ["reshape_out"])


def test_no_sample(tapped: Path) -> None:
    with pytest.raises(CalibrationError, match="no calibration sample"):
        collect(tapped, [], TENSORS)


@pytest.mark.parametrize(("bad", "kind"), [(np.nan, "NaN"), (-np.inf, "infinite")])
def test_the_first_bad_element_is_named(bad: float, kind: str, tapped: Path) -> None:
    x = images(5)
    x[3, 0, 2, 2] = bad
    found = collect(tapped, cut(x, 2), TENSORS)
    with pytest.raises(
        CalibrationError, match=rf"'x': 1 elements are {kind}, first in sample 3 \(batch 1"
    ):
        check_finite([found.histograms["x"]], found.how.batch)
    check_finite([from_array("y", images(1))], 1)
