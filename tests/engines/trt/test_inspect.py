"""The engine inspector's texts give the layers, whatever TensorRT wrote them and whatever lacks.

The golden texts are written by hand from the documented forms: no plan of these TensorRTs could be
inspected where quantlab was written.
"""

import json
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.trt.inspect import Inspected, Node, inspect, nodes_of
from quantlab.errors import EngineError
from quantlab.records import Fusion
from tests.models import Net

GOLDEN = Path(__file__).parents[2] / "golden" / "trt"

NODES = {
    "x_quantized": Node("QuantizeLinear", "x"),
    "stem.weight_dequantized": Node("DequantizeLinear", "stem.weight_quantized"),
    "stem": Node("Conv", "x_dequantized"),
    "relu": Node("Relu", "stem_out"),
    "left": Node("Conv", "relu_out"),
    "right": Node("Conv", "relu_out"),
    "joined": Node("Concat", "left_out"),
    "gate": Node("Sigmoid", "joined_out"),
    "scaled": Node("Mul", "joined_out"),
    "head": Node("Conv", "scaled_out"),
}


def golden(version: str) -> Inspected:
    return inspect((GOLDEN / f"inspector-{version}.json").read_text(), "int8", NODES)


def rows(found: Inspected) -> list[tuple[str, str, str, bool]]:
    return [(layer.name, layer.type, layer.precision, layer.weighted) for layer in found.layers]


def test_of_8_6() -> None:
    found = golden("8.6")
    copied = "Reformatting CopyNode for Input Tensor 0 to PWN(PWN(gate), scaled)"
    assert rows(found) == [
        ("x_quantized", "Reformat, Q/DQ", "f32", False),
        ("stem", "CaskConvolution", "i8", True),
        ("left", "CaskConvolution", "i8", True),
        ("right_out copy", "Reformat", "f16", False),
        (copied, "Reformat", "f16", False),
        ("gate", "PointWiseV2", "f16", False),
        ("head", "CaskConvolution", "tf32", True),
    ]
    assert found.fusions == (
        Fusion("stem", "vertical", ("stem", "relu")),
        Fusion("left", "horizontal", ("left", "right")),
        Fusion("gate", "vertical", ("gate", "scaled")),
        Fusion("", "removed", ("joined",)),
    )
    assert found.layers[1].kernel.startswith("sm80_xmma_fprop")
    assert found.notes == ("int8: of 3 weighted layers 1 in tf32 instead of i8: head",)


def test_of_10() -> None:
    found = golden("10")
    assert rows(found) == [
        ("stem", "CaskConvolution", "i8", True),
        ("left", "gemm", "f16", True),
        ("gate", "kgen", "f16", False),
        ("head", "gemm", "f32", True),
    ]
    assert found.fusions == (
        Fusion("stem", "vertical", ("stem", "relu")),
        Fusion("left", "horizontal", ("left", "right")),
        Fusion("gate", "vertical", ("gate", "scaled")),
        Fusion("", "removed", ("joined",)),
    )


def test_of_11_where_a_kernel_does_not_name_its_nodes() -> None:
    found = golden("11")
    assert rows(found) == [
        ("stem", "CaskConvolution", "i8", True),
        ("__myl_CorrAddSigmMul_myl0_1", "kgen", "bf16", True),
    ]
    assert found.fusions == (Fusion("stem", "vertical", ("stem", "relu")),), (
        "the Concat may be in the kernel that names nothing, so it is not called removed"
    )


def test_names_alone_give_the_fusions_and_say_that_types_are_missing() -> None:
    names = [
        "Reformatting CopyNode for Input Tensor 0 to stem + relu",
        "stem + relu",
        "{ForeignNode[left...head]}",
    ]
    found = inspect(json.dumps({"Layers": names}), "int8", NODES)
    assert rows(found) == [
        (names[0], "Reformat", "unknown", False),
        ("stem", "unknown", "unknown", False),
        ("left", "unknown", "unknown", False),
    ]
    assert found.fusions == (
        Fusion("stem", "vertical", ("stem", "relu")),
        Fusion("left", "vertical", ("left", "head")),
    )
    assert len(found.notes) == 1
    assert "detailed profiling verbosity" in found.notes[0]


def test_without_the_model_names_are_taken_as_they_are() -> None:
    layer = {"Name": "/a/Constant_output_0 + (Unnamed Layer* 9) [Shuffle] + PWN(/a/Pow, /a/Add)"}
    found = inspect(json.dumps({"Layers": [layer]}), "fp32", {})
    assert found.layers[0].name == "/a/Constant_output_0"
    assert found.fusions[0].nodes == ("/a/Constant_output_0", "/a/Pow", "/a/Add")


def test_layers_never_share_a_name() -> None:
    """Two kernels of one node: the second keeps TensorRT's name."""
    layers = [
        {"Name": "split_1", "Metadata": "[ONNX Layer: head]"},
        {"Name": "split_2", "Metadata": "[ONNX Layer: head]"},
    ]
    found = inspect(json.dumps({"Layers": layers}), "fp32", NODES)
    assert [layer.name for layer in found.layers] == ["head", "split_2"]


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        ({"TacticName": "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_"}, "tf32"),
        ({"TacticName": "sm89_xmma_gemm_e4m3bf16_e4m3f32_bf16_tn_"}, "f8"),
        ({"Weights": {"Type": "Half"}, "TacticName": "ampere_h1688gemm"}, "f16"),
        ({"ConvWeights": {"Type": "Int8"}}, "i8"),
        ({"Inputs": [{"Format/Datatype": "Channel major INT8 format"}]}, "i8"),
        ({"Inputs": [{"Format": "Row major linear FP16 format"}]}, "f16"),
        ({"Inputs": [{"Datatype": "N/A"}], "Outputs": [{"DataType": "Float"}]}, "f32"),
        ({"Inputs": "none", "Weights": 3}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_type_of_the_arithmetic(layer: dict[str, object], precision: str) -> None:
    text = json.dumps({"Layers": [{"Name": "a", "LayerType": "gemm"} | layer]})
    assert inspect(text, "fp32", {}).layers[0].precision == precision


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gave no JSON"),
        ("Layers:\n stem", "gave no JSON"),
        ("[]", r"listed no layers: '\[\]'"),
        ('{"Bindings": []}', "listed no layers"),
        ('{"Layers": {}}', "listed no layers"),
    ],
)
def test_what_is_no_list_of_layers_is_refused(text: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        inspect(text, "int8", {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["Name", "LayerType", "Inputs", "Outputs", "Metadata", "TacticName", "Weights", "Origin"]
)
LAYERS = st.lists(st.dictionaries(KEYS, VALUES) | st.text(max_size=40) | VALUES, max_size=5)


@given(LAYERS)
def test_any_layers_are_read(layers: list[object]) -> None:
    found = inspect(json.dumps({"Layers": layers}), "int8", NODES)
    assert len(found.layers) == len(layers)
    assert len(found.notes) <= 1


PARTS = st.lists(st.sampled_from([n for n in NODES if "quant" not in n]), min_size=2, unique=True)


@given(PARTS, st.sampled_from([" + ", " || "]))
def test_a_joined_name_gives_its_nodes_in_order(parts: list[str], joint: str) -> None:
    text = json.dumps({"Layers": [{"Name": joint.join(parts), "LayerType": "any"}]})
    fusions = inspect(text, "fp32", NODES).fusions
    assert fusions[0].nodes == tuple(parts)
    assert fusions[0].kind == "horizontal" or joint == " + "


def test_nodes_of_a_model(tmp_path: Path) -> None:
    net = Net()
    model = net.finish(net.relu(net.conv(net.input(), (16, 16), name="stem")))
    onnx.save(model, tmp_path / "int8.onnx")
    found = nodes_of(tmp_path / "int8.onnx")
    assert found["stem"] == Node("Conv", "x")
    assert nodes_of(tmp_path / "not-there.onnx") == {}
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"cannot read .*broken\.onnx"):
        nodes_of(tmp_path / "broken.onnx")
