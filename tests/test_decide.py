"""Tied tensors share a threshold; followers carry their source's."""

import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.mse import Mse
from quantlab.decide import decide, follow
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
