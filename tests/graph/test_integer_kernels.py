"""The engines that can run here really compute in integers."""

from collections import Counter
from pathlib import Path

import openvino
import pytest

from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import save
from quantlab.graph.placement import place
from tests.graph.cases import CASES, prepared
from tests.graph.running import kernels, relative_error, run, thresholds
from tests.models import feeds, residual, stacked

INTEGERS = {"i8", "u8"}


def openvino_layers(path: Path) -> Counter[tuple[str, str]]:
    """Return how many layers of each type run in each precision."""
    core = openvino.Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    return Counter(
        (str(info["layerType"].value), str(info["runtimePrecision"].value)) for info in infos
    )


def int8(model_name: str, folder: Path, policy: str) -> Path:
    """Write the INT8 model of a network and return its path."""
    original = {
        "residual": residual(channels=32),
        "stacked": stacked(["residual", "depthwise", "concat", "shortcut"]),
        "deconvolution": CASES["conv-transpose"].build(),
        "products": CASES["product"].build(),
        "pooled": CASES["integer-max"].build(),
    }[model_name]
    given = feeds(original)
    model = prepared(original, folder)
    save(model, folder / "prepared.onnx")
    placement = place(model, policy)
    found = thresholds(model, placement.tensors, given, folder)
    save(insert_qdq(model, placement, found, policy=policy), folder / "int8.onnx")
    expected = run(folder / "prepared.onnx", given)
    for name, values in run(folder / "int8.onnx", given).items():
        assert relative_error(expected[name], values) < 0.12
    return folder / "int8.onnx"


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("residual", "Convolution"),
        ("stacked", "Convolution"),
        ("pooled", "Convolution"),
        ("pooled", "Pooling"),
        ("deconvolution", "Deconvolution"),
        ("products", "FullyConnected"),
    ],
)
def test_openvino_runs_every_layer_in_integers(network: str, layer: str, tmp_path: Path) -> None:
    ran = openvino_layers(int8(network, tmp_path, "tensorrt"))
    precisions = {precision for kind, precision in ran if kind == layer}
    assert precisions
    assert precisions <= INTEGERS


def test_openvino_fuses_the_residual_add(tmp_path: Path) -> None:
    ran = openvino_layers(int8("residual", tmp_path, "tensorrt"))
    assert not [kind for kind, _ in ran if kind == "Eltwise"]


@pytest.mark.parametrize(
    ("network", "left", "made"),
    [
        ("residual", {"Conv", "FusedConv", "Add"}, {"QLinearConv", "QLinearAdd"}),
        ("stacked", {"Conv", "FusedConv"}, {"QLinearConv", "QLinearConcat", "QGemm"}),
        ("products", {"MatMul"}, {"QGemm", "MatMulIntegerToFloat"}),
    ],
)
def test_onnxruntime_forms_integer_kernels(
    network: str, left: set[str], made: set[str], tmp_path: Path
) -> None:
    ran = kernels(int8(network, tmp_path, "onnxruntime"), tmp_path)
    assert not left & set(ran)
    assert made <= set(ran)
