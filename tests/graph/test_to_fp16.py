"""The FP16 model computes nearly the same behind FP32 inputs and outputs."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import openvino
import pytest

from quantlab.errors import ModelError
from quantlab.graph.model import inputs, load, outputs, save
from quantlab.graph.to_fp16 import to_fp16
from tests.graph.cases import prepared
from tests.graph.running import relative_error, run
from tests.models import BLOCKS, Net, feeds, stacked


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
