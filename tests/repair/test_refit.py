"""Weights fitted anew: better where inputs are alike, exact in the mean, bounded, repeatable."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from quantlab.graph.tap import part
from quantlab.qparams import neighbours
from quantlab.repair.adaround import AdaRound
from quantlab.repair.jobs import RATE, jobs
from quantlab.repair.layers import folded
from quantlab.repair.refit import Refit
from quantlab.simulate import session
from tests.models import Net
from tests.repair.drafts import bench, draft, error, images

CHANNELS = 16


def alike() -> onnx.ModelProto:
    """Return layers of which one makes 64 channels of 4, that are rounded each for itself."""
    net = Net(seed=5)
    x = net.input(shape=("N", CHANNELS, 8, 8))
    for name, read, made in (("narrow", CHANNELS, 4), ("wide", 4, 64), ("last", 64, CHANNELS)):
        x = net.conv(x, (read, made), kernel=1, bias=True, name=name)
    return net.finish(x)


def test_it_averages_the_rounding_of_channels_that_are_alike() -> None:
    made, others = bench(images(64, CHANNELS)), images(32, CHANNELS, seed=1)
    plain = draft(alike(), made)
    [wide] = [a for a in plain.placement.activations if a.tensor == "wide_out"]
    plain = replace(plain, placement=replace(plain.placement, activations=(wide,), biases=()))
    rounded = AdaRound().propose(plain, made).draft
    proposal = Refit().propose(plain, made)
    assert rounded is not None
    assert proposal.draft is not None
    assert error(proposal.draft, others) < 0.7 * error(rounded, others)
    assert proposal.note == "3 layers rounded"
    assert set(proposal.draft.corrections.biases) == {"narrow", "wide", "last"}


def test_means_are_those_of_fp32_and_weights_beside_what_was_fitted() -> None:
    net = Net(seed=2)
    x = net.input(shape=("N", CHANNELS, 1, 1))  # one position: all of them are seen
    model = net.finish(net.conv(net.relu(net.conv(x, (CHANNELS, 32), kernel=1)), (32, 8), kernel=1))
    samples = images(64, CHANNELS)[:, :, :1, :1]
    made = bench(samples)
    before = draft(model, made)
    found = Refit().propose(before, made).draft
    assert found is not None
    runs = [session(m) for m in (before.model, folded(found, found.corrections))]
    floats, integers = (one.run(None, {"x": samples})[0] for one in runs)
    size = np.abs(floats).mean()
    assert np.abs((floats - integers).mean(axis=(0, 2, 3))).max() < 1e-3 * size
    for job in jobs(before):
        steps = neighbours(job.values, job.params)[0]
        stored = found.corrections.weights[job.layer.weight.initializer]
        assert np.array_equal(stored.params.scale, job.params.scale)
        assert np.abs(stored.integers - steps).max() < 20, "V is near W"


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_what_a_gemm_multiplies_its_sums_by_is_heeded(alpha: float) -> None:
    net = Net(seed=3)
    inputs = [net.input(shape=("N", 64)), net.random("w", (64, 32)), net.random("b", (32,))]
    model = net.finish(net.add("Gemm", inputs, name="last", attributes={"alpha": alpha}))
    samples = images(64, CHANNELS)[:, :, :2, :2].reshape(64, 64) ** 2  # never negative
    made = bench(samples)
    before = draft(model, made)
    found = Refit().propose(before, made).draft
    assert found is not None
    assert error(found, samples) < error(before, samples)


def test_time_leaves_layers_out_and_the_result_is_repeatable() -> None:
    made = bench(images(32, CHANNELS), seconds=3.2e8 / RATE)
    plain = draft(alike(), made)
    first, second = (Refit().propose(plain, made) for _ in range(2))
    assert "left out for want of time" in first.note
    assert first.draft is not None
    assert second.draft is not None
    assert 0 < len(first.draft.corrections.weights) < 3
    for name, stored in first.draft.corrections.weights.items():
        assert np.array_equal(stored.integers, second.draft.corrections.weights[name].integers)


def test_no_time_and_nothing_to_round_are_said() -> None:
    made = bench(images(8, CHANNELS), seconds=1e-6)
    proposal = Refit().propose(draft(alike(), made), made)
    assert (proposal.draft, proposal.note) == (None, "1e-06 s are too few for any of 3 layers")
    net = Net()
    x = net.input(shape=("N", CHANNELS, 8, 8))
    powers = np.full((CHANNELS, CHANNELS, 1, 1), 127 / 128, np.float32)
    model = net.finish(net.add("Conv", [x, net.weight("w", powers)]))
    proposal = Refit().propose(draft(model, made), made)
    assert proposal.draft is None
    assert "off its grid" in proposal.note


def test_a_part_computes_its_outputs_and_no_more() -> None:
    whole = draft(alike(), bench(images(8, CHANNELS))).model
    made = part(whole, ["x"], ["wide_out"])
    assert [str(node.name) for node in made.graph] == ["narrow", "wide"]
    assert [value.name for value in made.graph.outputs] == ["wide_out"]
    assert not any("last" in name for name in made.graph.initializers)
