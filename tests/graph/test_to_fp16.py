"""The FP16 model computes nearly the same behind FP32 inputs and outputs."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import openvino
import pytest

from quantlab.errors import ModelError
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import inputs, load, outputs, save
from quantlab.graph.pins import pin
from quantlab.graph.placement import place
from quantlab.graph.to_fp16 import to_fp16
from quantlab.records import TensorThreshold
from tests.graph.cases import prepared
from tests.graph.running import relative_error, run, thresholds
from tests.models import BLOCKS, Net, feeds, residual, stacked


@pytest.mark.parametrize("opset", [9, 13, 21])
def test_close_to_fp32_and_half_the_size(opset: int, tmp_path: Path) -> None:
    original = stacked(sorted(BLOCKS), opset=opset)
    model = prepared(original, tmp_path)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    made = to_fp16(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert made.clipped == ()
    save(model, tmp_path / "fp32.onnx")
    save(made.model, tmp_path / "fp16.onnx")
    half = load(tmp_path / "fp16.onnx")
    assert (inputs(half), outputs(half)) == (inputs(model), outputs(model))
    assert {str(v.name) for n in model.graph for v in n.outputs} <= {
        str(v.name) for n in half.graph for v in n.outputs
    }
    weights = {v.dtype for v in half.graph.initializers.values()}
    assert ir.DataType.FLOAT16 in weights
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.7 * (tmp_path / "fp32.onnx").stat().st_size
    given = feeds(original)
    expected, got = run(tmp_path / "fp32.onnx", given), run(tmp_path / "fp16.onnx", given)
    for name, values in expected.items():
        assert got[name].dtype == np.float32
        assert relative_error(values, got[name]) < 0.02  # 11 bits a value, some ten layers
    openvino.Core().compile_model(tmp_path / "fp16.onnx", "CPU")


def test_resize_keeps_its_scales_in_fp32(tmp_path: Path) -> None:
    net = Net(opset=13)
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    x = net.add("Resize", [net.conv(net.input(), (16, 16)), "", scales])
    made = to_fp16(prepared(net.finish(net.conv(x, (16, 16))), tmp_path))
    save(made.model, tmp_path / "fp16.onnx")
    load(tmp_path / "fp16.onnx")
    openvino.Core().compile_model(tmp_path / "fp16.onnx", "CPU")


def test_weights_beyond_fp16_are_named(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="fine")
    big = net.weight("big.scale", np.array([1e6], np.float32))
    model = prepared(net.finish(net.add("Mul", [x, big])), tmp_path)
    assert to_fp16(model).clipped == ("big.scale",)


def test_a_model_that_the_converter_breaks_is_refused(tmp_path: Path) -> None:
    net = Net()
    original = net.finish(net.conv(net.input(), (16, 16)))
    original.graph.output.append(original.graph.input[0])  # it gives two tensors one name
    with pytest.raises(ModelError, match=r"cannot be converted to FP16: .*'x'"):
        to_fp16(prepared(original, tmp_path))


def _half_values(model: ir.Model) -> set[str]:
    return {
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if value.dtype == ir.DataType.FLOAT16
    }


def test_what_is_pinned_to_fp32_is_computed_from_fp32_numbers(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 4, 6, 6)), (4, 8), name="first"))
    x = net.relu(net.conv(x, (8, 8), name="second"))
    original = net.finish(net.conv(x, (8, 8), name="third"))
    model = prepared(original, tmp_path)
    given = feeds(original)

    save(to_fp16(pin(model, {"*": "fp32"})).model, tmp_path / "all.onnx")
    save(model, tmp_path / "fp32.onnx")
    expected = run(tmp_path / "fp32.onnx", given)
    for name, values in run(tmp_path / "all.onnx", given).items():
        np.testing.assert_array_equal(values, expected[name])

    part = to_fp16(pin(model, {"first": "fp32", "relu*": "fp32", "third": "fp16"})).model
    weights = {str(v.name): v.dtype for v in part.graph.initializers.values()}
    assert weights["first.weight"] == ir.DataType.FLOAT
    assert weights["second.weight"] == weights["third.weight"] == ir.DataType.FLOAT16
    assert {
        str(n.name): n.inputs[0].dtype for n in part.graph if n.op_type == "Conv" and n.inputs[0]
    } == {
        "first": ir.DataType.FLOAT,
        "second": ir.DataType.FLOAT16,
        "third": ir.DataType.FLOAT16,
    }
    assert _half_values(part)


@pytest.mark.parametrize("amax", [3.0, 1e-4, 3e-6], ids=["usual", "small", "below FP16's steps"])
def test_integers_stay_what_they_were(amax: float, tmp_path: Path) -> None:
    original = stacked(sorted(BLOCKS))
    model = prepared(original, tmp_path)
    placement = place(model)
    fixed = {t: TensorThreshold(t, amax, amax, "fixed", -amax) for t in placement.tensors}
    made = insert_qdq(model, placement, fixed, float16=True)
    half = to_fp16(made).model
    save(half, tmp_path / "half.onnx")
    load(tmp_path / "half.onnx")
    before, after = made.graph.initializers, half.graph.initializers
    scales = [name for name in before if str(name).endswith("_scale")]
    assert scales
    for name in scales:
        wide, narrow = before[name].const_value, after[name].const_value
        assert wide is not None
        assert narrow is not None
        assert narrow.dtype == ir.DataType.FLOAT16
        np.testing.assert_array_equal(narrow.numpy().astype(np.float32), wide.numpy())
    for name in before:
        if str(name).endswith("_quantized"):
            left, right = before[name].const_value, after[name].const_value
            assert left is not None
            assert right is not None
            np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_int8_within_fp16_computes_what_int8_within_fp32_does(tmp_path: Path) -> None:
    original = residual()
    given = feeds(original)
    model = prepared(original, tmp_path)
    placement = place(model)
    found = thresholds(model, placement.tensors, given, tmp_path)
    save(insert_qdq(model, placement, found), tmp_path / "fp32.onnx")
    save(to_fp16(insert_qdq(model, placement, found, float16=True)).model, tmp_path / "fp16.onnx")
    expected, got = run(tmp_path / "fp32.onnx", given), run(tmp_path / "fp16.onnx", given)
    for name, values in expected.items():
        assert got[name].dtype == np.float32
        # FP16 moves a value across a border of INT8's grid now and then: one step of 127
        assert relative_error(values, got[name]) < 0.02
