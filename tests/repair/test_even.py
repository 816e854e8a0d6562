"""Channels that are a little unequal: evened out together with what makes up for the weights."""

import numpy as np
import onnx

from quantlab.repair.adaround import AdaRound
from quantlab.repair.bias import Bias
from quantlab.repair.even import Even
from quantlab.repair.rescaling import Equalize
from tests.models import Net
from tests.repair.drafts import bench, draft, error, images

CHANNELS = 16


def chain(spread: float) -> onnx.ModelProto:
    """Return three layers; the middle ones' channels are up to ``spread`` times each other."""
    net = Net(seed=3)
    x = net.input(shape=("N", CHANNELS, 8, 8))
    factors = np.exp2(np.linspace(0, np.log2(spread), CHANNELS)).astype(np.float32)
    for name in ("first", "second", "third"):
        weights = net.rng.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 12
        if name != "third":
            weights *= net.rng.permutation(factors).reshape(-1, 1, 1, 1)
        pads = {"pads": [1] * 4}
        x = net.add("Conv", [x, net.weight(f"{name}.weight", weights)], name=name, attributes=pads)
        x = net.relu(x) if name != "third" else x
    return net.finish(x)


def test_evens_out_what_equalize_leaves_alone() -> None:
    samples, others = images(64, CHANNELS), images(32, CHANNELS, seed=1)
    made = bench(samples)
    plain = draft(chain(3.0), made)
    assert Equalize().propose(plain, made).draft is None
    corrected = AdaRound().propose(Bias().propose(plain, made).draft or plain, made).draft
    assert corrected is not None
    proposal = Even().propose(corrected, made)
    assert proposal.draft is not None
    assert proposal.draft.corrections.biases.keys() == corrected.corrections.biases.keys()
    assert proposal.draft.corrections.weights.keys() == corrected.corrections.weights.keys()
    assert error(proposal.draft, others) < 0.9 * error(corrected, others)
    assert "scaled first_out" in proposal.note


def test_corrects_nothing_that_was_not_corrected() -> None:
    made = bench(images(16, CHANNELS))
    proposal = Even().propose(draft(chain(3.0), made), made)
    assert proposal.draft is not None
    assert not proposal.draft.corrections


def test_leaves_a_single_layer_alone() -> None:
    net = Net()
    x = net.input(shape=("N", CHANNELS, 8, 8))
    made = bench(images(16, CHANNELS))
    proposal = Even().propose(draft(net.finish(net.conv(x, (CHANNELS, CHANNELS))), made), made)
    assert proposal.draft is None
    assert proposal.note
