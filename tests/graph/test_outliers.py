"""Outlying channels: powers of two for these alone, exactly."""

from pathlib import Path

import numpy as np

from quantlab.graph.outliers import OUTLYING as LIMIT
from quantlab.graph.outliers import outliers
from tests.graph.cases import prepared
from tests.graph.channels import OUTLYING, UNEQUAL, gated, given, output, ranges
from tests.models import Net


def test_only_outlying_channels_are_scaled_and_by_powers_of_two(tmp_path: Path) -> None:
    proto = gated(OUTLYING)
    model = prepared(proto, tmp_path)
    amax = ranges(model, given(proto), tmp_path)
    made = outliers(model, amax)
    (tensor,) = made.changes[0].tensors
    constant = made.model.graph.initializers[f"{tensor}_factors"].const_value
    assert constant is not None
    factors = constant.numpy().reshape(-1)
    np.testing.assert_array_equal(np.frexp(factors)[0], 0.5)
    outlying = amax[tensor] > LIMIT * np.median(amax[tensor])
    assert not (factors[~outlying] != 1).any()
    assert (factors[outlying] < 1).all()
    left = made.amax[f"{tensor}_scaled"]
    assert left.max() <= amax[tensor].max() / LIMIT


def test_the_fp32_function_stays_bit_for_bit(tmp_path: Path) -> None:
    proto = gated(OUTLYING)
    model, batch = prepared(proto, tmp_path), given(proto)
    made = outliers(model, ranges(model, batch, tmp_path))
    expected = output(model, batch, tmp_path)
    np.testing.assert_array_equal(output(made.model, batch, tmp_path), expected)


def test_channels_that_spread_evenly_are_no_outliers(tmp_path: Path) -> None:
    proto = gated(2.0 ** np.linspace(-1.5, 1.5, 16))
    model = prepared(proto, tmp_path)
    assert outliers(model, ranges(model, given(proto), tmp_path)).model is model


def test_other_readers_see_the_tensor_as_it_was(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem")
    x = net.add("Sigmoid", [x], name="active")
    y = net.conv(x, (16, 16), groups=16, name="deep")
    z = net.add("Exp", [x], name="other")
    model = prepared(net.finish(net.add("Mul", [y, z])), tmp_path)
    made = outliers(model, {"active_out": np.where(np.arange(16) == 3, 2.0**7, 1.0)})
    read = {node.name: node.inputs[0] for node in made.model.graph}
    assert read["other"] is not None
    assert read["deep"] is not None
    assert (read["other"].name, read["deep"].name) == ("active_out", "active_out_scaled")


def test_factors_go_down_to_what_is_no_longer_outlying(tmp_path: Path) -> None:
    proto = gated(UNEQUAL)
    model = prepared(proto, tmp_path)
    made = outliers(model, ranges(model, given(proto), tmp_path))
    for change in made.changes:
        assert change.factors_high == 1
        assert np.log2(change.factors_low) == round(np.log2(change.factors_low))
