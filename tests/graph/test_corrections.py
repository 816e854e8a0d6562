"""Corrections: stored whole or refused, and added where engines still form integer kernels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantlab.errors import CalibrationError, ModelError
from quantlab.graph.add_biases import add_biases
from quantlab.graph.corrections import NONE, Corrections, StoredWeight, load, save
from quantlab.graph.editor import Editor
from quantlab.graph.insert_qdq import insert_qdq, nearest_grid
from quantlab.graph.model import save as save_model
from quantlab.graph.passes import copy
from quantlab.graph.placement import place
from quantlab.graph.to_fp16 import to_fp16
from quantlab.qparams import QParams, quantize_weights, symmetric
from tests.graph.cases import prepared
from tests.graph.running import kernels, relative_error, run, thresholds
from tests.models import Net, feeds


def net_of(*layers: Callable[[Net, str], str]) -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 16, 8, 8))
    for layer in layers:
        x = layer(net, x)
    return net.finish(x)


def flat(net: Net, x: str) -> str:
    return net.add("Reshape", [x, net.weight("shape", np.array([0, 1024]))])


def layer(op: str, *extra: str, beta: float | None = None) -> Callable[[Net, str], str]:
    """Return what adds a product called "layer", with a bias where one is named."""

    def add(net: Net, x: str) -> str:
        width = 1024 if op == "Gemm" else 8
        inputs = [x, net.random("w", (width, 32), fan=width)]
        inputs += [net.random(name, (32,)) for name in extra]
        attributes = {} if beta is None else {"beta": beta}
        return net.add(op, inputs, name="layer", attributes=attributes)

    return add


CASES: dict[str, onnx.ModelProto] = {
    "conv": net_of(lambda n, x: n.conv(x, (16, 32), name="layer")),
    "conv with bias": net_of(lambda n, x: n.conv(x, (16, 32), bias=True, name="layer")),
    "transposed": net_of(lambda n, x: n.conv_transpose(x, (16, 32), groups=2, name="layer")),
    "gemm": net_of(flat, layer("Gemm")),
    "gemm with bias": net_of(flat, layer("Gemm", "b")),
    "gemm with half a bias": net_of(flat, layer("Gemm", "b", beta=0.5)),
    "gemm that drops its bias": net_of(flat, layer("Gemm", "b", beta=0.0)),
    "product": net_of(layer("MatMul")),
    "product and relu": net_of(layer("MatMul"), Net.relu),
    "product and bias": net_of(
        layer("MatMul"), lambda n, x: n.add("Add", [n.random("b", (32,)), x], name="added")
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_channel_of_a_layer_moves(name: str, tmp_path: Path) -> None:
    original = CASES[name]
    model = prepared(original, tmp_path)
    values = np.linspace(-1, 1, 32, dtype=np.float32)
    editor = Editor(copy(model))
    add_biases(editor, {"layer": values})
    editor.model.graph.sort()
    save_model(model, tmp_path / "before.onnx")
    save_model(editor.model, tmp_path / "after.onnx")
    given = feeds(original)
    before, after = (run(tmp_path / f"{n}.onnx", given) for n in ("before", "after"))
    assert list(before) == list(after)
    channel = values.reshape(-1, 1, 1) if "conv" in name or name == "transposed" else values
    for key, values_before in before.items():
        plain, now = values_before.astype(np.float32), after[key].astype(np.float32)
        moved = now - plain
        seen = (plain > 0) & (now > 0) | (name != "product and relu")
        assert moved[seen] == pytest.approx(np.broadcast_to(channel, plain.shape)[seen], abs=1e-5)
    count = sum(node.op_type == "Add" for node in editor.model.graph)
    assert count == (name.startswith("product"))


def test_wrong_channels_are_refused(tmp_path: Path) -> None:
    editor = Editor(copy(prepared(CASES["conv with bias"], tmp_path)))
    with pytest.raises(ModelError, match="node 'layer' has not the 7 channels"):
        add_biases(editor, {"layer": np.zeros(7, np.float32)})


@pytest.mark.parametrize(
    ("name", "integer"),
    [
        ("gemm", "QGemm"),
        ("product", "MatMulIntegerToFloat"),
        ("product and bias", "MatMulIntegerToFloat"),
    ],
)
def test_corrected_layers_are_integer_kernels_in_onnxruntime(
    name: str, integer: str, tmp_path: Path
) -> None:
    original = CASES[name]
    model = prepared(original, tmp_path)
    placement = place(model, "onnxruntime")
    found = thresholds(model, placement.tensors, feeds(original), tmp_path)
    values = np.linspace(-1, 1, 32, dtype=np.float32)
    results = {}
    for label, corrections in (("plain", NONE), ("corrected", Corrections({}, {"layer": values}))):
        int8 = insert_qdq(model, placement, found, policy="onnxruntime", corrections=corrections)
        save_model(int8, tmp_path / f"{label}.onnx")
        ran = kernels(tmp_path / f"{label}.onnx", tmp_path)
        assert integer in ran
        assert not {"Gemm", "MatMul"} & set(ran)
        results[label] = run(tmp_path / f"{label}.onnx", feeds(original))
    for key, before in results["plain"].items():
        plain, now = before.astype(np.float32), results["corrected"][key].astype(np.float32)
        assert now - plain == pytest.approx(np.broadcast_to(values, plain.shape), abs=1e-3)


def test_corrections_reach_fp16(tmp_path: Path) -> None:
    original = CASES["conv with bias"]
    model = prepared(original, tmp_path)
    placement = place(model)
    found = thresholds(model, placement.tensors, feeds(original), tmp_path)
    (weight,) = placement.weights
    value = model.graph.initializers[weight.initializer].const_value
    assert value is not None
    grid = nearest_grid(value.numpy(), weight.axis)
    params = QParams(grid.scale / np.float32(2), grid.zero_point, grid.axis)
    corrections = Corrections(
        {weight.initializer: StoredWeight(quantize_weights(value.numpy(), params), params)},
        {"layer": np.full(32, 3, np.float32)},
    )
    plain, whole, half = (
        insert_qdq(model, placement, found, float16=float16, corrections=given)
        for float16, given in ((False, NONE), (False, corrections), (True, corrections))
    )
    outputs = []
    for name, one in (("plain", plain), ("whole", whole), ("half", to_fp16(half).model)):
        save_model(one, tmp_path / f"{name}.onnx")
        outputs.append(next(iter(run(tmp_path / f"{name}.onnx", feeds(original)).values())))
    assert relative_error(outputs[1], outputs[2]) < 0.02
    assert relative_error(outputs[1], outputs[0]) > 0.5


def made() -> Corrections:
    weight = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
    params = symmetric(6.0)
    return Corrections(
        {"w": StoredWeight(quantize_weights(weight, params), params)},
        {"layer": np.array([1.5, -2], np.float32)},
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "c.npz", made())
    first = (tmp_path / "c.npz").read_bytes()
    found = load(tmp_path / "c.npz")
    assert list(found.weights) == ["w"]
    assert np.array_equal(found.weights["w"].integers, made().weights["w"].integers)
    assert found.weights["w"].params.axis is None
    assert found.weights["w"].params.scale == made().weights["w"].params.scale
    assert np.array_equal(found.biases["layer"], made().biases["layer"])
    save(tmp_path / "c.npz", found)
    assert (tmp_path / "c.npz").read_bytes() == first
    save(tmp_path / "none.npz", NONE)
    assert not load(tmp_path / "none.npz")


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "scale"])
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    if damage == "scale":
        one = made()
        params = symmetric(1.0)
        params.scale[...] = -1
        save(path, Corrections({"w": StoredWeight(one.weights["w"].integers, params)}))
    elif damage == "other":
        np.savez(path, a=np.zeros(3))
    elif damage == "cut":
        save(path, made())
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CalibrationError, match=r"cannot read the corrections in .*c.npz: .*again"):
        load(path)
