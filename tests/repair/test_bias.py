"""Bias correction: channel means become equal, and a model without mean error stays."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from quantlab.engines.ort_session import run
from quantlab.graph.channel_means import point, with_means
from quantlab.graph.fold_dequantize import fold_dequantize
from quantlab.graph.placement import POLICIES
from quantlab.repair.bias import Bias
from quantlab.repair.layers import layers
from quantlab.simulate import Draft, session
from tests.models import Net
from tests.repair.drafts import BATCH, bench, draft, error, images


def chain() -> onnx.ModelProto:
    """Three layers without Relu, so that means can be made equal to the bit, all but."""
    net = Net(opset=18)
    x = net.conv(net.input(shape=("N", 16, 8, 8)), (16, 32), bias=True, name="first")
    x = net.conv(net.add("Sigmoid", [x]), (32, 16), name="second")
    return net.finish(net.conv_transpose(x, (16, 16), name="third"))


def product() -> onnx.ModelProto:
    net = Net()
    x = net.add(
        "Reshape", [net.input(shape=("N", 16, 8, 8)), net.weight("s", np.array([0, 64, 16]))]
    )
    x = net.matmul(x, (16, 32), name="first")
    x = net.add("Add", [net.random("b", (32,)), x])
    return net.finish(net.matmul(net.add("Tanh", [x]), (32, 16), name="second"))


def means(one: Draft, samples: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the channel means of every layer, of FP32 and of INT8."""
    points = {layer.name: point(layer.node) for layer in layers(one)}
    found = []
    for model in (one.model, fold_dequantize(one.int8()).model):
        watched, names = with_means(model, points)
        found.append(list(run(session(watched), tuple(names.values()), {"x": samples}).values()))
    return found[0], found[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_channel_means_are_equal_on_the_samples_it_saw(policy: str) -> None:
    samples = images(BATCH, 16)
    made = bench(samples)
    plain = draft(chain(), made, policy=policy)
    floats, before = means(plain, samples)
    proposal = Bias().propose(plain, made)
    assert proposal.draft is not None
    _, after = means(proposal.draft, samples)
    for right, was, now in zip(floats, before, after, strict=True):
        # What later layers read is rounded anew, so that a step here and there falls otherwise.
        assert np.abs(now - right).max() < 0.2 * np.abs(was - right).max()


@pytest.mark.parametrize("build", [chain, product])
def test_it_mends_shifted_weights(build: Callable[[], onnx.ModelProto]) -> None:
    samples = images(64, 16)
    made = bench(samples)
    plain = draft(build(), made)
    proposal = Bias().propose(plain, made)
    assert proposal.draft is not None
    held = images(32, 16, seed=1)
    assert error(proposal.draft, held) < 0.9 * error(plain, held)


def test_biases_are_found_anew_not_added_up() -> None:
    samples = images(32, 16)
    made = bench(samples)
    once = Bias().propose(draft(chain(), made), made).draft
    assert once is not None
    twice = Bias().propose(once, made).draft
    assert twice is not None
    for name, bias in once.corrections.biases.items():
        assert np.array_equal(bias, twice.corrections.biases[name])


def test_leaves_a_model_whose_weights_come_first() -> None:
    net = Net()
    x = net.add("MatMul", [net.random("w", (32, 32)), net.input(shape=("N", 32, 32))])
    made = bench(images(16, 1).reshape(-1, 32, 32)[:8])
    before = draft(net.finish(x), made)
    assert before.placement.weights
    assert Bias().propose(before, made).note == "no layer has a mean error"


def test_leaves_a_model_without_error() -> None:
    """Weights and inputs that are on their grids, whose steps are 1."""
    net = Net()
    weights = net.rng.integers(-126, 127, size=(32, 16, 1, 1)).astype(np.float32)
    weights[:, 0] = 127
    x = net.input(shape=("N", 16, 8, 8))
    x = net.add("Conv", [x, net.weight("w", weights)], name="conv")
    samples = net.rng.integers(-126, 127, size=(BATCH, 16, 8, 8)).astype(np.float32)
    samples[0, 0, 0, 0] = 127
    made = bench(samples)
    proposal = Bias().propose(draft(net.finish(x), made), made)
    assert proposal.draft is None
    assert proposal.note == "no layer has a mean error"
