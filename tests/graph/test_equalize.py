"""Equalization: which factors, and the caveat of ReLU6."""

from pathlib import Path

import numpy as np
import pytest

from quantlab.graph.channel_noise import Reading, balanced
from quantlab.graph.equalize import equalize
from quantlab.qparams import fake_quantize, per_channel, symmetric
from tests.graph.cases import prepared
from tests.graph.channels import (
    COLLAPSED,
    HELD,
    UNEQUAL,
    bounded,
    given,
    int8_error,
    output,
    ranges,
)

SMALL = UNEQUAL / UNEQUAL.max() / 8
"""Factors of channels that stay far below 6."""


def test_relu6_whose_bound_never_acts_becomes_relu(tmp_path: Path) -> None:
    proto = bounded(SMALL, 6.0)
    model, batch = prepared(proto, tmp_path), given(proto)
    made = equalize(model, ranges(model, batch, tmp_path))
    assert {node.op_type for node in model.graph} == {"Conv", "Clip", "Relu"}
    assert {node.op_type for node in made.model.graph} == {"Conv", "Relu"}
    assert made.changes[0].clips == ("clip",)
    assert "clip" in made.changes[0].nodes
    expected = output(model, batch, tmp_path)
    np.testing.assert_allclose(output(made.model, batch, tmp_path), expected, atol=1e-5)
    assert int8_error(model, batch, tmp_path) > COLLAPSED
    assert int8_error(made.model, batch, tmp_path) < HELD


def test_relu6_whose_bound_acts_keeps_its_channels(tmp_path: Path) -> None:
    bound = 0.25  # a few elements of the largest channel reach it
    proto = bounded(SMALL, bound)
    model, batch = prepared(proto, tmp_path), given(proto)
    amax = ranges(model, batch, tmp_path)
    assert amax["clip_out"].max() == bound
    made = equalize(model, amax)
    assert all("clip_out" not in change.tensors for change in made.changes)
    assert "Clip" in {node.op_type for node in made.model.graph}


def test_a_clip_without_upper_bound_is_a_relu(tmp_path: Path) -> None:
    proto = bounded(SMALL, np.inf)
    model = prepared(proto, tmp_path)
    made = equalize(model, ranges(model, given(proto), tmp_path))
    assert "clip_out" in made.changes[0].tensors
    assert "Clip" in {node.op_type for node in made.model.graph}


def test_a_channel_that_was_never_seen_keeps_finite_factors(tmp_path: Path) -> None:
    proto = bounded(SMALL, 6.0)
    model = prepared(proto, tmp_path)
    amax = {name: seen.copy() for name, seen in ranges(model, given(proto), tmp_path).items()}
    for seen in amax.values():
        seen[2] = 0.0
    made = equalize(model, amax)
    assert made.changes
    assert np.isfinite([c.factors_high for c in made.changes]).all()
    assert np.isfinite(output(made.model, given(proto), tmp_path)).all()


def test_factors_share_the_inequality_between_activation_and_weights() -> None:
    rng = np.random.default_rng(0)
    ranges_, weights = 2.0 ** rng.uniform(-4, 4, 16), np.abs(rng.normal(size=(1, 8, 16, 9)))
    reading, largest = Reading(ranges_, (weights,)), weights.max(axis=(0, 1, 3))
    for exponent in (0.0, 0.5, 1.0):
        made = balanced(reading, exponent)
        wanted = largest ** (1 - exponent) / ranges_**exponent
        np.testing.assert_allclose(made / wanted, (made / wanted)[0])
        np.testing.assert_allclose((made * ranges_).max(), ranges_.max())


@pytest.mark.parametrize("spread", [1.0, 2.0**10])
def test_the_model_tells_the_noise_of_rounding(spread: float) -> None:
    """Within 3 dB of what quantizing random channels and weights really adds."""
    rng = np.random.default_rng(1)
    sizes = spread ** rng.uniform(-0.5, 0.5, 32)
    x = np.clip(rng.normal(size=(4096, 32)), -4, 4) * sizes
    w = rng.normal(size=(32, 24)) / sizes[:, None]
    q = fake_quantize(x, symmetric(float(np.abs(x).max())))
    r = fake_quantize(w, per_channel(w, 1))
    noise = float((((q @ r - x @ w) ** 2).mean(axis=0) / ((x @ w) ** 2).mean(axis=0)).mean())
    reading = Reading(np.abs(x).max(axis=0), (np.abs(w.T)[None, :, :, None],))
    assert 0.5 < noise / reading.noise(np.ones(32)) < 2
