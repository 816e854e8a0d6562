"""Centring as a repair: half the error where ReLUs waste half of the grid, nothing elsewhere."""

import numpy as np
import onnx
import pytest

from quantlab.graph.insert_qdq import grids
from quantlab.qparams import LEVELS
from quantlab.repair.bias import Bias
from quantlab.repair.center import Center
from quantlab.simulate import Draft
from tests.models import Net
from tests.repair.drafts import bench, draft, error, images

CHANNELS = 16


def chain(depth: int = 4) -> onnx.ModelProto:
    """Return layers with weights that INT8 holds exactly: what is lost is lost by activations."""
    net = Net(seed=1)
    x = net.input(shape=("N", CHANNELS, 8, 8))
    for i in range(depth):
        steps = net.rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        steps[:, 0, 0, 0] = 127
        inputs = [x, net.weight(f"w{i}", steps / 2048), net.random(f"b{i}", (CHANNELS,))]
        x = net.add("Conv", inputs, name=f"conv{i}", attributes={"pads": [1] * 4})
        x = net.relu(x) if i < depth - 1 else x
    return net.finish(x)


def test_the_error_of_activations_falls_by_half_of_its_size() -> None:
    samples, others = images(64, CHANNELS), images(32, CHANNELS, seed=1)
    made = bench(samples)
    plain = draft(chain(), made)
    # What the model is given is on a whole grid already and stays.
    inner = [a for a in plain.placement.activations if a.tensor != "x"]
    assert len(inner) == 3
    proposal = Center().propose(plain, made)
    assert proposal.draft is not None
    assert proposal.note == "centred 3 tensors, with an Add behind 3 layers that pad them"
    assert error(proposal.draft, others) < 0.5 * error(plain, others)


def test_the_grid_covers_what_it_covered_and_zero_is_its_end() -> None:
    made = bench(images(64, CHANNELS))
    plain = draft(chain(), made)
    found = Center().propose(plain, made).draft
    assert found is not None
    before, after = (grids(d.placement, d.thresholds, d.policy) for d in (plain, found))
    for name in plain.placement.tensors[1:]:
        assert after[name].scale == pytest.approx(before[name].scale / 2)
        one = found.thresholds[name]
        assert one.minimum == -one.threshold
        assert -LEVELS * after[name].scale == pytest.approx(one.minimum)
        assert one.method == plain.thresholds[name].method
    assert found.thresholds["x"] == plain.thresholds["x"]


def test_corrected_biases_make_up_for_rounded_weights() -> None:
    net = Net(seed=4)
    x = net.input(shape=("N", CHANNELS, 8, 8))
    for _ in range(3):
        x = net.relu(net.conv(x, (CHANNELS, CHANNELS), bias=True))
    samples, others = images(64, CHANNELS), images(32, CHANNELS, seed=1)
    made = bench(samples)
    plain = draft(net.finish(net.conv(x, (CHANNELS, CHANNELS))), made)

    def corrected(one: Draft) -> Draft:
        found = Bias().propose(one, made).draft
        assert found is not None
        return found

    proposal = Center().propose(plain, made)
    assert proposal.draft is not None
    assert error(corrected(proposal.draft), others) < error(corrected(plain), others)


@pytest.mark.parametrize("policy", ["openvino", "onnxruntime"])
def test_unsigned_grids_need_nothing(policy: str) -> None:
    made = bench(images(16, CHANNELS))
    proposal = Center().propose(draft(chain(), made, policy=policy), made)
    assert proposal.draft is None
    assert "symmetric" in proposal.note
