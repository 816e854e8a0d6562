"""Weights that came as integers go as the same integers."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from quantlab.graph.fold_dequantize import fold_dequantize
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import save
from quantlab.graph.placement import place
from tests.graph.cases import prepared
from tests.graph.running import relative_error, run, thresholds
from tests.models import Net, feeds

SCALES = np.linspace(0.003, 0.02, 16).astype(np.float32)


def weight_only(
    stored: np.ndarray, *, zero: int | None = 0, scales: np.ndarray = SCALES, opset: int = 17
) -> onnx.ModelProto:
    """Return a product with weights behind a DequantizeLinear, one scale a column."""
    net = Net(opset=opset)
    inputs = [net.weight("stored", stored), net.weight("scales", scales)]
    if zero is not None:
        inputs.append(net.weight("zero", np.full(scales.shape, zero, stored.dtype)))
    weight = net.add("DequantizeLinear", inputs, name="real", attributes={"axis": 1})
    return net.finish(net.add("MatMul", [net.input(shape=("N", 32)), weight], name="product"))


def integers(*, full: bool = True) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(-127, 128, (32, 16)).astype(np.int8)
    drawn[0] = 127 if full else drawn[0]
    return drawn


def test_they_keep_their_values_and_their_grid(tmp_path: Path) -> None:
    original = weight_only(integers())
    given = feeds(original)
    model = prepared(original, tmp_path)
    assert [node.op_type for node in model.graph] == ["MatMul"]
    placement = place(model)
    found = thresholds(model, placement.tensors, given, tmp_path)
    made = insert_qdq(model, placement, found).graph.initializers
    (weight,) = placement.weights
    stored = made[f"{weight.initializer}_quantized"].const_value
    scale = made[f"{weight.initializer}_scale"].const_value
    assert stored is not None
    assert scale is not None
    np.testing.assert_array_equal(stored.numpy(), integers())
    np.testing.assert_allclose(scale.numpy(), SCALES, rtol=1e-6)


@pytest.mark.parametrize("zero", [None, 0, 3])
def test_the_model_computes_the_same(zero: int | None, tmp_path: Path) -> None:
    original = weight_only(integers(full=False), zero=zero)
    given = feeds(original)
    save(prepared(original, tmp_path), tmp_path / "prepared.onnx")
    before = run(tmp_path / "model.onnx", given)
    after = run(tmp_path / "prepared.onnx", given)
    assert relative_error(before["product_out"], after["product_out"]) < 1e-6


def test_computed_scales_stay_and_blocks_are_left_to_constant_folding(tmp_path: Path) -> None:
    net = Net()
    stored = net.weight("stored", integers())
    scale = net.add("Exp", [net.input("s", (16,))])
    real = net.add("DequantizeLinear", [stored, scale], attributes={"axis": 1})
    made = net.finish(net.add("MatMul", [net.input(shape=("N", 32)), real]))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(made))
    assert not fold_dequantize(model).changed
    blocks = weight_only(integers(), zero=None, scales=np.ones((4, 16), np.float32), opset=21)
    node = next(n for n in blocks.graph.node if n.name == "real")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", 0))
    node.attribute.append(helper.make_attribute("block_size", 8))
    assert not fold_dequantize(ir.from_proto(blocks)).changed
    assert [n.op_type for n in prepared(blocks, tmp_path).graph] == ["MatMul"]
