"""Mse finds the least of all its candidates, as a plain integral over every bin sees them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.mse import Mse
from quantlab.histogram import Histogram, from_array
from quantlab.qparams import fake_quantize, symmetric
from tests.calibrators.test_quality import oracle
from tests.strategies import histograms, magnitudes

SPARSE = st.lists(magnitudes(), min_size=1, max_size=6).map(
    lambda values: from_array("t", np.array(values))
)


@given(SPARSE, st.sampled_from([7, 127]))
@settings(max_examples=15)
def test_no_edge_is_better_and_none_further_out_as_good(h: Histogram, levels: int) -> None:
    edges = [*(h.edges[1 : h.used]).tolist(), h.amax]
    costs = np.array([oracle(h, edge / levels, levels) for edge in edges])
    found = max(np.flatnonzero(np.array(edges) == Mse(levels).threshold(h)))
    assert costs[found] == pytest.approx(costs.min(), rel=1e-9, abs=1e-11)
    assert (costs[found + 1 :] > costs.min() + 1e-13).all()


@given(histograms(), st.sampled_from([1, 15, 127]))
def test_never_worse_than_not_clipping_and_never_beyond(h: Histogram, levels: int) -> None:
    found, widest = Mse(levels).threshold(h), MinMax().threshold(h)
    assert found <= widest
    clipped, kept = (oracle(h, t / levels, levels) for t in (found, widest))
    assert clipped <= kept * (1 + 1e-9) + 1e-11


@pytest.mark.parametrize("seed", range(3))
def test_beats_every_other_threshold_on_the_data_itself(seed: int) -> None:
    x = np.random.default_rng(seed).laplace(size=40_000)
    found = Mse().threshold(from_array("t", x))

    def error(threshold: float) -> float:
        return float(np.square(fake_quantize(x, symmetric(threshold)) - x).mean())

    tried = [error(t) for t in np.linspace(0.02, 1, 99) * np.abs(x).max()]
    # The histogram knows magnitudes to a bin, and the data may use -128: 1 % of the error.
    assert error(found) <= min(tried) * 1.01
