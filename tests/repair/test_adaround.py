"""AdaRound: the best of all roundings on tiny layers, never worse than nearest, bounded."""

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.engines.ort_session import run
from quantlab.graph.prepare import prepare
from quantlab.graph.windows import readable
from quantlab.qparams import QParams, dequantize, neighbours, per_channel, quantize_weights
from quantlab.repair.adaround import AdaRound
from quantlab.repair.bias import Bias
from quantlab.repair.jobs import RATE, affordable
from quantlab.repair.patches import patches, row_shape, rows
from quantlab.repair.rounding import Choice, errors, rounded
from quantlab.repair.weights import Weights
from quantlab.simulate import session
from tests.models import Net
from tests.repair.drafts import bench, draft, error, images


def choice(weights: NDArray[np.float64]) -> Choice:
    params = per_channel(weights, 0)
    nearest = quantize_weights(weights, params).astype(np.float64)
    return Choice(*neighbours(weights, params), nearest)


def drawn(seed: int, channels: int, inputs: int, samples: int) -> tuple[Choice, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, inputs)) + 2 * rng.normal(size=(samples, 1))
    return choice(rng.normal(size=(channels, inputs))), x.T @ x / samples


@given(seed=st.integers(0, 999), inputs=st.integers(1, 20), samples=st.integers(1, 30))
def test_never_worse_than_nearest_and_within_the_limits(
    seed: int, inputs: int, samples: int
) -> None:
    one, gram = drawn(seed, 3, inputs, samples)
    found = rounded(one, gram)
    assert ((found == one.below) | (found == one.above) | (found == one.nearest)).all()
    assert np.abs(found).max() <= 127
    assert (errors(found - one.steps, gram) <= errors(one.nearest - one.steps, gram)).all()


def test_near_the_best_of_all_roundings() -> None:
    """Turning single choices over can end beside the best; on the whole it is not far."""
    left = possible = 0.0
    for seed in range(30):
        one, gram = drawn(seed, 1, 8, 100)
        every = np.array(list(product(*zip(one.below[0], one.above[0], strict=True))))
        best = errors(every - one.steps, gram).min()
        found = errors(rounded(one, gram) - one.steps, gram)[0]
        assert best <= found * (1 + 1e-9)
        left += found - best
        possible += errors(one.nearest - one.steps, gram)[0] - best
    assert left < 0.1 * possible


@pytest.mark.parametrize(("op", "transposed"), [("MatMul", 0), ("Gemm", 0), ("Gemm", 1)])
def test_rows_of_a_product_are_its_output_channels(op: str, transposed: int) -> None:
    attributes = {"transB": transposed} if op == "Gemm" else {}
    net = Net()
    shape = (5, 7) if transposed else (7, 5)
    inputs = [net.input(shape=("N", 7)), net.random("w", shape)]
    made = net.finish(net.add(op, inputs, name="layer", attributes=attributes))
    node = ir.from_proto(made).graph[0]
    values = np.arange(35).reshape(shape)
    found = values.ravel()[rows(node, shape)]
    assert found.shape == row_shape(node, shape) == (1, 5, 7)
    assert np.array_equal(found[0], values if transposed else values.T)


def conv(op: str, attributes: dict[str, object], groups: int) -> onnx.ModelProto:
    net = Net()
    shape = (8, 8 // groups, 3, 2)
    inputs = [net.input(shape=("N", 8, 9, 7)), net.random("w", shape)]
    return net.finish(net.add(op, inputs, name="layer", attributes={**attributes, "group": groups}))


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(
    "attributes",
    [{}, {"strides": [2, 3], "pads": [1, 0, 2, 1]}, {"dilations": [2, 1], "pads": [1, 1, 1, 1]}],
)
def test_patches_are_what_a_convolution_reads(
    op: str, attributes: dict[str, object], groups: int
) -> None:
    """Every value that the layer gives at the positions that are drawn is a product of these."""
    model = prepare(ir.from_proto(conv(op, attributes, groups))).model
    (node,) = model.graph
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    values = weight.const_value.numpy()
    x = np.random.default_rng(0).normal(size=(1, 8, 9, 7)).astype(np.float32)
    assert readable(node, values.shape)
    assert row_shape(node, values.shape) == rows(node, values.shape).shape
    read = patches(node, values.shape, x, count=50, rng=np.random.default_rng(1))
    matrix = values.ravel()[rows(node, values.shape)]
    got = (read @ matrix.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(50, -1)
    made = run(session(model), [str(node.outputs[0].name)], {"x": x})
    points = np.moveaxis(next(iter(made.values()))[0], 0, -1).reshape(-1, 8)
    distance = np.abs(points[None] - got[:, None]).max(axis=2).min(axis=1)
    assert distance.max() < 1e-4
    met = np.unique(np.abs(points[None] - got[:, None]).max(axis=2).argmin(axis=1))
    assert len(met) >= min(len(points), 20)


def network() -> onnx.ModelProto:
    """Layers whose inputs are alike, so that errors of rounding can make up for each other."""
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 16, 8, 8)), (16, 32), bias=True, name="first"))
    x = net.relu(net.conv(x, (32, 32), groups=32, name="depthwise"))
    return net.finish(net.conv(x, (32, 16), kernel=1, name="last"))


def test_it_mends_what_rounding_costs() -> None:
    made = bench(images(64, 16))
    plain = draft(network(), made)
    proposal = AdaRound().propose(plain, made)
    assert proposal.note == "3 layers rounded"
    assert proposal.draft is not None
    # Of the weights alone: the activations' noise is not what is rounded here.
    floats = {"placement": replace(plain.placement, activations=(), ties=())}
    held = images(32, 16, seed=1)
    before, after = (error(replace(one, **floats), held) for one in (plain, proposal.draft))  # type: ignore[arg-type]
    assert after < 0.7 * before


def test_it_keeps_the_scales_that_are_stored_and_is_deterministic() -> None:
    made = bench(images(32, 16))
    tight = Weights().propose(draft(network(), made), made).draft
    assert tight is not None
    first, second = (AdaRound().propose(tight, made).draft for _ in range(2))
    assert first is not None
    assert second is not None
    for name, stored in first.corrections.weights.items():
        other = tight.corrections.weights.get(name)
        assert other is None or np.array_equal(stored.params.scale, other.params.scale)
        assert np.array_equal(stored.integers, second.corrections.weights[name].integers)
        assert stored.integers.min() >= -127
        assert dequantize(stored.integers, stored.params).shape == stored.integers.shape


def test_time_leaves_out_the_layers_that_round_best() -> None:
    made = bench(images(32, 16), seconds=2.6e8 / RATE)
    proposal = AdaRound().propose(draft(network(), made), made)
    assert proposal.draft is not None
    assert "left out for want of time" in proposal.note
    assert 0 < len(proposal.draft.corrections.weights) < 3


def test_a_layer_that_does_not_fit_makes_room_for_others() -> None:
    one = draft(network(), bench(images(16, 16)))
    every, _ = affordable(one, 3 / RATE, lambda _: 1.0)
    worst = every[0].layer.name
    chosen, note = affordable(one, 3 / RATE, lambda job: 5.0 if job.layer.name == worst else 1.0)
    assert [job.layer.name for job in chosen] == [job.layer.name for job in every[1:]]
    assert note == "2 layers rounded, 1 left out for want of time"


def test_corrected_biases_are_corrected_anew() -> None:
    made = bench(images(32, 16))
    before = Bias().propose(draft(network(), made), made).draft
    assert before is not None
    proposal = AdaRound().propose(before, made)
    assert proposal.note == "3 layers rounded, biases corrected anew"
    assert proposal.draft is not None
    again = Bias().propose(proposal.draft, made).draft
    assert again is not None
    for name, bias in proposal.draft.corrections.biases.items():
        assert np.array_equal(bias, again.corrections.biases[name])
        assert not np.array_equal(bias, before.corrections.biases[name])


def test_too_little_time_is_said() -> None:
    made = bench(images(16, 16), seconds=1e-6)
    proposal = AdaRound().propose(draft(network(), made), made)
    assert proposal.draft is None
    assert proposal.note == "1e-06 s are too few for any of 3 layers"


def test_leaves_weights_that_are_on_their_grid() -> None:
    net = Net()
    values = net.rng.integers(-126, 127, size=(32, 16, 1, 1)).astype(np.float32)
    values[:, 0] = 127
    x = net.add("Conv", [net.input(shape=("N", 16, 8, 8)), net.weight("w", values)], name="conv")
    made = bench(images(16, 16))
    proposal = AdaRound().propose(draft(net.finish(x), made), made)
    assert proposal.draft is None
    assert proposal.note == "no weight that can be rounded otherwise is off its grid"


def test_neighbours_stay_within_the_limits() -> None:
    params = QParams(np.asarray(1, np.float32), np.asarray(0, np.int8))
    _, below, above = neighbours(np.array([-127.5, -0.25, 3.0, 500.0]), params)
    assert below.tolist() == [-127, -1, 3, 127]
    assert above.tolist() == [-127, 0, 3, 127]
