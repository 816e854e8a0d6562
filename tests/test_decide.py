"""Tied tensors share a threshold; followers carry their source's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quantlab.calibrators import CALIBRATORS, PER_BATCH
from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.minmax_mean import MinMaxMean
from quantlab.calibrators.mse import Mse
from quantlab.decide import algorithm, decide, follow, knobs
from quantlab.errors import CalibrationError
from quantlab.histogram import from_array

ARRAYS = hnp.arrays(np.float32, 20, elements={"min_value": -8, "max_value": 8})


@given(ARRAYS, ARRAYS)
def test_tied_tensors_get_the_threshold_of_their_union(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> None:
    histograms = {"a": from_array("a", a), "b": from_array("b", b), "c": from_array("c", b)}
    found = decide(histograms, Mse(), method="mse", ties=[("a", "b", "unknown")])
    together = Mse().threshold(from_array("ab", np.concatenate([a, b])))
    assert found["a"].threshold == found["b"].threshold == together
    assert found["c"].threshold == Mse().threshold(histograms["c"])
    assert found["a"].minimum == min(a.min(), b.min())
    assert found["a"].amax == float(np.abs(a).max())


def test_ties_with_a_tensor_in_common_are_one() -> None:
    """Two placements of one model: a Concat ties a, b there; a MaxPool ties b, c here."""
    sizes = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 5.0, "e": 4.0}
    histograms = {name: from_array(name, np.array([size])) for name, size in sizes.items()}
    ties = [("a", "b"), ("d", "e"), ("b", "c")]
    found = decide(histograms, MinMax(), method="minmax", ties=ties)
    assert [t.threshold for t in found.values()] == [3.0, 3.0, 3.0, 5.0, 5.0]


def test_order_and_method_are_recorded() -> None:
    histograms = {name: from_array(name, np.ones(3)) for name in ("z", "a")}
    found = decide(histograms, MinMax(), method="minmax")
    assert list(found) == ["z", "a"]
    assert {t.method for t in found.values()} == {"minmax"}


def test_followers_carry_their_source_and_change_nothing_else() -> None:
    histograms = {"relu": from_array("relu", np.array([0.0, 2.0]))}
    found = decide(histograms, MinMax(), method="minmax")
    more = follow(found, {"pool": "relu", "relu": "relu", "lost": "unknown"})
    assert more["relu"] == found["relu"]
    assert (more["pool"].threshold, more["pool"].method) == (2.0, "tied")
    assert "lost" not in more


@given(ARRAYS, ARRAYS)
def test_tied_tensors_share_each_batchs_maximum(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> None:
    """As if the two were one tensor, cut into batches of five elements of each."""
    histograms = {
        name: replace(from_array(name, x), batch_amax=maxima(x))
        for name, x in {"a": a, "b": b, "c": b}.items()
    }
    found = decide(histograms, MinMaxMean(), method="minmax_mean", ties=[("a", "b")])
    together = np.maximum(maxima(a), maxima(b))
    assert found["a"].threshold == found["b"].threshold == pytest.approx(together.mean(), rel=1e-15)
    assert found["c"].threshold == pytest.approx(maxima(b).mean(), rel=1e-15)


def maxima(x: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.abs(x.astype(np.float64)).reshape(4, 5).max(axis=1)
    return found


def test_a_tied_tensor_without_its_batches_maxima_is_an_error() -> None:
    a, b = from_array("a", np.ones(3)), from_array("b", np.ones(3))
    histograms = {"a": replace(a, batch_amax=np.ones(1)), "b": b}
    with pytest.raises(CalibrationError, match=r"'a'.*each batch"):
        decide(histograms, MinMaxMean(), method="minmax_mean", ties=[("a", "b")])
    assert decide(histograms, MinMax(), method="minmax", ties=[("a", "b")])["a"].threshold == 1.0


@pytest.mark.parametrize("method", CALIBRATORS)
def test_the_batch_is_a_knob_of_the_methods_that_depend_on_it(method: str) -> None:
    found = knobs(method, {"key": 1}, nonfinite="fail", batch=8)
    expected = {"key": 1, "nonfinite": "fail"}
    assert found == (expected | {"batch": 8} if method in PER_BATCH else expected)


def test_headers_name_min_max_for_the_methods_of_maxima() -> None:
    named = {method for method in CALIBRATORS if algorithm(method) == "MinMaxCalibration"}
    assert named == {"minmax", "minmax_mean"}
    assert algorithm("mse") == "EntropyCalibration2"
