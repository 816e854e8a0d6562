"""Weight thresholds: never worse than the range, as good as trying one by one, idle on a grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantlab.graph.corrections import StoredWeight
from quantlab.graph.insert_qdq import nearest_grid
from quantlab.qparams import dequantize, fake_quantize, quantize_weights, symmetric
from quantlab.repair.weights import FRACTIONS, Weights, least_squares
from tests.models import Net
from tests.repair.drafts import bench, draft, error, images

floats = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-100, 100, width=32),
)


@given(weights=floats, whole=st.booleans())
def test_never_worse_than_the_range_in_any_channel(weights: np.ndarray, *, whole: bool) -> None:
    before = nearest_grid(weights, None if whole else 1)
    found = least_squares(weights, before)
    assert (found.scale <= before.scale).all()
    integers = quantize_weights(weights, found)
    assert integers.min() >= -127
    axes = tuple(i for i in range(weights.ndim) if whole or i != 1)
    new, old = (
        np.square(weights.astype(np.float64) - values).sum(axis=axes)
        for values in (dequantize(integers, found), fake_quantize(weights, before))
    )
    assert (new <= old * (1 + 1e-6)).all()  # float32 and float64 sum up otherwise


def test_of_one_channel_it_is_the_best_of_all_fractions() -> None:
    weights = np.random.default_rng(0).standard_t(3, size=(1, 400)).astype(np.float32)
    amax = float(np.abs(weights).max())
    tried = [symmetric(amax * f) for f in FRACTIONS]
    costs = [np.square(weights - dequantize(quantize_weights(weights, q), q)).sum() for q in tried]
    best = tried[int(np.argmin(costs))]
    assert best.scale < symmetric(amax).scale
    found = least_squares(weights, nearest_grid(weights, 0))
    assert found.scale[0] == pytest.approx(float(best.scale), rel=1e-6)


def planted(*, outlier: float) -> tuple[Net, np.ndarray]:
    """Return a convolution whose weights are 0.5 steps of a wide grid, but one in each channel."""
    net = Net()
    weights = net.rng.choice([-1.5, 1.5], size=(8, 64, 3, 3)).astype(np.float32)
    weights[:, 0, 0, 0] = outlier
    net.weight("w", weights)
    x = net.input(shape=("N", 64, 8, 8))
    net.add("Conv", [x, "w"], name="conv", attributes={"pads": [1] * 4})
    return net, weights


def test_clips_what_makes_all_others_coarse() -> None:
    net, _ = planted(outlier=127.0)
    made = bench(images(32, 64))
    plain = draft(net.finish("conv_out"), made)
    proposal = Weights().propose(plain, made)
    assert proposal.note == "a tighter scale for 8 of 8 channels of weights"
    assert proposal.draft is not None
    stored = proposal.draft.corrections.weights["w"]
    assert isinstance(stored, StoredWeight)
    assert (stored.params.scale < 1).all()
    assert not plain.corrections


def test_leaves_weights_that_are_on_their_grid() -> None:
    net, weights = planted(outlier=127.0)
    net.weight("w", np.rint(weights))
    made = bench(images(32, 64))
    plain = draft(net.finish("conv_out"), made)
    proposal = Weights().propose(plain, made)
    assert proposal.draft is None
    assert proposal.note == "no weight has a better scale than that of its range"
    assert error(plain, images(16, 64)) < 1e-3
