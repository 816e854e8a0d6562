"""SmoothQuant: its formula, where the factors go, and who shares them."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.smooth import ALPHA, smooth
from tests.graph.cases import prepared
from tests.graph.channels import OUTLYING, activated, given, normalized, ranges


def _array(model: ir.Model, name: str) -> NDArray[np.float64]:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy().astype(np.float64)


def test_the_factors_are_the_papers(tmp_path: Path) -> None:
    proto = normalized(OUTLYING)
    model = prepared(proto, tmp_path)
    amax = ranges(model, given(proto), tmp_path)
    made = smooth(model, amax)
    weights = [np.abs(_array(model, f"{name}.weight")).max(axis=1) for name in ("q", "k", "v")]
    divisor = amax["norm_out"] ** ALPHA / np.max(weights, axis=0) ** (1 - ALPHA)
    for name in ("norm.scale", "norm.bias"):
        got = _array(made.model, name) / _array(model, name)
        np.testing.assert_allclose(got * divisor, (got * divisor)[0], rtol=1e-5)
    for name in ("q", "k", "v"):
        got = _array(made.model, f"{name}.weight") / _array(model, f"{name}.weight")
        np.testing.assert_allclose(
            got / divisor[:, None], (got / divisor[:, None])[0, 0], rtol=1e-5
        )


def test_behind_a_normalization_no_node_is_added(tmp_path: Path) -> None:
    proto = normalized(OUTLYING)
    model = prepared(proto, tmp_path)
    made = smooth(model, ranges(model, given(proto), tmp_path))
    assert [n.name for n in made.model.graph] == [n.name for n in model.graph]
    assert made.changes[0].nodes == ("norm", "q", "k", "v")


def test_behind_gelu_a_product_stands_in_front_of_the_reader(tmp_path: Path) -> None:
    proto = activated(OUTLYING)
    model = prepared(proto, tmp_path)
    made = smooth(model, ranges(model, given(proto), tmp_path))
    product, reader = made.changes[0].nodes
    assert reader == "down"
    read = made.model.graph.node(reader).inputs[0]
    maker = None if read is None else read.producer()
    assert maker is not None
    assert (maker.op_type, maker.name) == ("Mul", product)


def test_alpha_shares_the_inequality(tmp_path: Path) -> None:
    proto = normalized(OUTLYING)
    model = prepared(proto, tmp_path)
    amax = ranges(model, given(proto), tmp_path)
    ratios = []
    for alpha in (0.4, 0.5, 0.7):
        seen = smooth(model, amax, alpha=alpha).amax["norm_out"]
        ratios.append(seen.max() / np.median(seen))
    assert ratios == sorted(ratios, reverse=True)
