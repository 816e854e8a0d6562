"""A tapped model gives its inner tensors and computes nothing else differently."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from quantlab.errors import ModelError
from quantlab.graph.model import save
from quantlab.graph.tap import tap
from tests.graph.cases import prepared
from tests.graph.running import run
from tests.models import Net, feeds, residual


def test_inner_tensors_are_outputs(tmp_path: Path) -> None:
    original = residual()
    model = prepared(original, tmp_path)
    names = [str(node.outputs[0].name) for node in model.graph]
    tapped = tap(model, ["x", *names, names[0]])
    save(model, tmp_path / "plain.onnx")
    save(tapped, tmp_path / "tapped.onnx")
    given = feeds(original)
    got = run(tmp_path / "tapped.onnx", given)
    expected = run(tmp_path / "plain.onnx", given)
    assert list(got) == [*expected, *(name for name in names if name not in expected)]
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)
    relu = next(node for node in model.graph if node.op_type == "Relu")
    before, after = (str(v.name) for v in (relu.inputs[0], relu.outputs[0]) if v is not None)
    np.testing.assert_array_equal(got[after], np.maximum(got[before], 0))
    assert [v.name for v in model.graph.outputs] == list(expected), "the argument stays as it is"


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="1 tensors are not in the graph, the first is 'nowhere'"):
        tap(prepared(residual(), tmp_path), ["nowhere"])


def test_a_type_that_onnx_does_not_know_is_left_to_onnxruntime(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    flat = net.add("Reshape", [x, net.weight("flat", np.array([-1]))])
    net.add("Unique", [flat], name="unique", outputs=3)
    counted = net.add("Cast", ["unique_out1"], attributes={"to": onnx.TensorProto.FLOAT})
    original = net.finish(counted)
    next(n for n in original.graph.node if n.name == "unique").domain = "com.microsoft"
    original.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    model = prepared(original, tmp_path)
    save(tap(model, ["unique_out1"]), tmp_path / "tapped.onnx")
    assert run(tmp_path / "tapped.onnx", feeds(original))["unique_out1"].dtype == np.int64
