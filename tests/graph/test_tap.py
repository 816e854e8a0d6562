"""A tapped model gives its inner tensors and computes nothing else differently."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from quantlab.errors import ModelError, OutputError
from quantlab.graph.model import load, reload, save
from quantlab.graph.tap import beside, tap, tapped, watch
from tests.graph.cases import prepared
from tests.graph.running import run
from tests.models import Net, feeds, residual, write


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


def test_a_tapped_file_finds_external_data_and_is_gone_after_the_block(tmp_path: Path) -> None:
    write(residual(), tmp_path / "model.onnx")
    path = tmp_path / "external.onnx"
    save(load(tmp_path / "model.onnx"), path, external_bytes=0)
    before = {file.name for file in tmp_path.iterdir()}
    assert "external.onnx.data" in before
    given = feeds(residual())
    with tapped(path, ["add0_out"]) as file:
        assert file.stat().st_size < path.stat().st_size + 1000, "weights are not copied"
        assert run(file, given)["add0_out"].shape == (2, 16, 8, 8)
    assert {file.name for file in tmp_path.iterdir()} == before
    with pytest.raises(ZeroDivisionError), tapped(path, ["add0_out"]):
        raise ZeroDivisionError
    assert {file.name for file in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = write(residual(), tmp_path / "model.onnx")
    gone = tmp_path / "gone" / "model.onnx"
    with (
        pytest.raises(OutputError, match=r"cannot write .*/gone/model\.onnx"),
        beside(reload(path), gone),
    ):
        pytest.fail("there is nowhere to write")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("op", ["Shape", "Size"])
def test_watched_tensors_are_told_beside_the_outputs(tmp_path: Path, batch: int, op: str) -> None:
    path = write(residual(), tmp_path / "model.onnx")
    model, outputs = watch(reload(path), ["add0_out"], op)
    write_to = tmp_path / "watched.onnx"
    save(model, write_to)
    found = run(write_to, feeds(residual(), batch=batch))
    expected = np.array([batch, 16, 8, 8])
    assert (
        found[outputs["add0_out"]].tolist()
        == (expected if op == "Shape" else expected.prod()).tolist()
    )
    plain = run(path, feeds(residual(), batch=batch))
    assert found.keys() > plain.keys(), "the model's own outputs stay"
    with pytest.raises(ModelError, match="'gone'"):
        watch(reload(path), ["gone"], op)
