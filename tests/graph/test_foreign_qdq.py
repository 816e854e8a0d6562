"""Each rule names the place, TensorRT-RTX does with it what the rule says, and converting helps."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quantlab.graph.convert_qdq import convert
from quantlab.graph.foreign_qdq import RULES, Finding, check
from quantlab.graph.model import load, save
from quantlab.graph.prepare import prepare
from quantlab.graph.qdq_points import settle
from tests.graph.foreign import CHANNELS, Spoilt, by_onnxruntime, constant, graph, tensorrt
from tests.models import residual, write

WIDE = np.full(CHANNELS, 0.02, np.float32)
INTEGER = ("int8", "int8")


def found(model: onnx.ModelProto) -> tuple[Finding, ...]:
    return check(settle(ir.from_proto(model)))


def converted(model: onnx.ModelProto) -> onnx.ModelProto:
    settled = settle(ir.from_proto(model))
    return ir.to_proto(convert(settled, check(settled)))


def test_what_tensorrt_wants_is_found_fit_and_runs_in_int8() -> None:
    model = Spoilt().model()
    assert found(model) == ()
    assert tensorrt(model).types()[:2] == INTEGER


CASES: dict[str, tuple[Spoilt, str, str, str]] = {
    # rule: a model, the node, the tensor, what is found
    "integer-bias": (Spoilt(bias="int32"), "bias", "b", "it stores INT32, as a bias"),
    "stored-unsigned": (
        Spoilt(weights=np.uint8, weight_zero=128),
        "weights",
        "w",
        "its integers are stored or fed as UINT8",
    ),
    "unsigned": (
        Spoilt(zero=np.uint8(0)),
        "quantize",
        "x",
        "its integers are UINT8 with zero point 0",
    ),
    "asymmetric": (Spoilt(zero=np.int8(5)), "quantize", "x", "its zero point is INT8 5"),
    "scale": (
        Spoilt(scale=np.float32(0)),
        "quantize",
        "x",
        "its scale is 0, which is no positive number",
    ),
    "per-channel": (
        Spoilt(scale=WIDE, zero=np.zeros(CHANNELS, np.int8), axis=1),
        "quantize",
        "x",
        "it has 16 scales, one a channel",
    ),
    "one-element": (
        Spoilt(scale=np.array([0.02], np.float32), zero=np.zeros(1, np.int8)),
        "quantize",
        "x",
        "its scale is a vector of one element",
    ),
    "output-axis": (
        Spoilt(weight_axis=1),
        "weights",
        "w",
        "its scales run along axis 1, the layer's output channels along 0",
    ),
    "type": (Spoilt(zero=np.int16(0), opset=21), "quantize", "x", "its integers are INT16"),
}

REFUSED = {
    "integer-bias": "bias: .*Int32",
    "stored-unsigned": "weights: .*unsupported input type of UINT8",
    "asymmetric": "quantize: .*Non-zero zero point is not supported",
    "scale": "quantize: .*Scale coefficients must all be positive",
    "type": "Failed to import initializer: x_zero",
}
"""What the parser refuses, and the words of its refusal."""

FLOAT = ("per-channel", "one-element", "output-axis")
"""What it takes, to run the layer in floating point."""


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_names_the_node_and_the_tensor(rule: str) -> None:
    spoilt, node, tensor, words = CASES[rule]
    (finding,) = found(spoilt.model())
    assert (finding.rule, finding.node, finding.tensor) == (rule, node, tensor)
    assert finding.found == words
    row = next(row for row in RULES if row.name == rule)
    assert str(finding) == f"{finding.op} {node!r} of {tensor!r}: {words}; {row.effect}"
    assert finding.convertible is bool(row.repair)


@pytest.mark.parametrize("rule", REFUSED)
def test_tensorrt_refuses_what_the_rule_says_it_refuses(rule: str) -> None:
    outcome = tensorrt(CASES[rule][0].model())
    assert not outcome.plan
    assert re.search(REFUSED[rule], outcome.refused, re.S)


@pytest.mark.parametrize("rule", FLOAT)
def test_tensorrt_silently_runs_in_floating_point(rule: str) -> None:
    outcome = tensorrt(CASES[rule][0].model())
    assert outcome.warnings == ()
    assert set(outcome.types()) == {"float"}


@pytest.mark.parametrize("zero", [np.uint8(0), None], ids=["uint8", "none"])
def test_tensorrt_takes_unsigned_for_signed(zero: np.uint8 | None) -> None:
    model = Spoilt(zero=zero).model()
    (finding,) = found(model)
    assert finding.rule == "unsigned"
    outcome = tensorrt(model)
    assert outcome.types()[:2] == INTEGER
    told = [text for text in outcome.warnings if "Defaulting to INT8" in text]
    assert bool(told) is (zero is not None)
    assert not any({"quantize", "x", "x_q"} & set(text.split()) for text in told)  # names no node


def test_tensorrt_rtx_takes_axis_1_where_none_is_written() -> None:
    model = Spoilt(weight_axis=None).model()
    assert [finding.rule for finding in found(model)] == ["axis", "output-axis"]
    assert tensorrt(model).plan == tensorrt(Spoilt(weight_axis=1).model()).plan
    assert tensorrt(converted(model)).types()[:2] == INTEGER


@pytest.mark.parametrize("rule", [rule for rule in CASES if rule != "type"])
def test_converted_it_builds_in_int8(rule: str) -> None:
    model = converted(CASES[rule][0].model())
    onnx.checker.check_model(model, full_check=True)
    assert found(model) == ()
    outcome = tensorrt(model)
    assert outcome.refused == ""
    assert outcome.types()[:2] == INTEGER


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (np.float32(-0.5), "its scale is -0.5"),
        (np.float32(np.nan), "its scale is nan"),
        (np.float32(np.inf), "its scale is inf"),
    ],
)
def test_scales_that_are_no_positive_number(scale: np.float32, words: str) -> None:
    (finding,) = found(Spoilt(scale=scale).model())
    assert finding.found.startswith(words)
    assert finding.convertible is bool(np.isfinite(scale))


def test_a_dead_channel_is_counted() -> None:
    scales = np.full(CHANNELS, 0.01, np.float32)
    scales[[2, 5]] = 0
    (finding,) = found(Spoilt(weight_scale=scales).model())
    assert finding.found == "2 of its 16 scales are 0, which is no positive number"
    assert "Scale coefficients" in tensorrt(Spoilt(weight_scale=scales).model()).refused


def test_as_nncf_quantizes_a_depthwise_convolution() -> None:
    """UINT8 with a scale a channel: two findings of one tensor."""
    spoilt = Spoilt(scale=WIDE, zero=np.zeros(CHANNELS, np.uint8), axis=1, groups=CHANNELS)
    model = spoilt.model()
    assert [(f.rule, f.node) for f in found(model)] == [
        ("unsigned", "quantize"),
        ("per-channel", "quantize"),
    ]
    assert set(tensorrt(model).types()) == {"float"}
    assert tensorrt(converted(model)).types()[:2] == INTEGER


PAIR = [
    helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize"),
]
GRID = [constant("s", np.float32(0.1)), constant("z", np.int8(0))]
UNSIGNED = [GRID[0], constant("z", np.uint8(0))]


def of_runtime_scale() -> onnx.ModelProto:
    model = Spoilt().model()
    largest = helper.make_node("ReduceMax", ["x"], ["x_scale"], "largest", keepdims=0)
    model.graph.node.insert(0, largest)
    model.graph.initializer.remove(
        next(tensor for tensor in model.graph.initializer if tensor.name == "x_scale")
    )
    return model


def test_a_scale_that_is_computed_is_found_before_it_ends_the_process(tmp_path: Path) -> None:
    model = of_runtime_scale()
    (finding,) = found(model)
    assert (finding.rule, finding.convertible) == ("computed", False)
    assert finding.found == "its scale is computed at run time"
    pytest.importorskip("tensorrt_rtx")
    onnx.save(model, tmp_path / "m.onnx")
    code = (
        "import sys, onnx; from tests.graph.foreign import tensorrt;"
        f"tensorrt(onnx.load({str(tmp_path / 'm.onnx')!r}))"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False, capture_output=True)
    assert done.returncode < 0  # a signal: TensorRT-RTX 1.7 gives no error that could be caught


def test_a_scale_that_is_computed_from_constants_is_a_constant() -> None:
    root = helper.make_node("Mul", ["r", "r"], ["s"], "square")
    assert found(graph([root, *PAIR], [constant("r", np.float32(0.3)), GRID[1]])) == ()


INTEGER_MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "QLinearConv": lambda: graph(
        [
            PAIR[0],
            helper.make_node(
                "QLinearConv",
                ["q", "s", "z", "w", "s", "z", "s", "z"],
                ["p"],
                "integer",
                pads=[1] * 4,
            ),
            helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"], "dequantize"),
        ],
        [*GRID, constant("w", np.ones((CHANNELS, CHANNELS, 3, 3), np.int8))],
    ),
    "QLinearMatMul": lambda: graph(
        [
            PAIR[0],
            helper.make_node(
                "QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["p"], "integer"
            ),
            helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"], "dequantize"),
        ],
        [*GRID, constant("w", np.ones((8, 8), np.int8))],
    ),
    "ConvInteger": lambda: graph(
        [
            PAIR[0],
            helper.make_node("ConvInteger", ["q", "w"], ["p"], "integer", pads=[1] * 4),
            helper.make_node("Cast", ["p"], ["y"], "cast", to=TensorProto.FLOAT),
        ],
        [*GRID, constant("w", np.ones((CHANNELS, CHANNELS, 3, 3), np.int8))],
    ),
    "MatMulInteger": lambda: graph(
        [
            PAIR[0],
            helper.make_node("MatMulInteger", ["q", "w"], ["p"], "integer"),
            helper.make_node("Cast", ["p"], ["y"], "cast", to=TensorProto.FLOAT),
        ],
        [*GRID, constant("w", np.ones((8, 8), np.int8))],
    ),
}


@pytest.mark.parametrize("op", INTEGER_MODELS)
def test_integer_operators_are_named_and_refused(op: str) -> None:
    model = INTEGER_MODELS[op]()
    (finding,) = found(model)
    assert (finding.rule, finding.op, finding.node) == ("integer-operator", op, "integer")
    assert not finding.convertible
    assert "integer" in tensorrt(model).refused


def in_a_branch() -> onnx.ModelProto:
    def branch(name: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [output])

    kept = helper.make_node("Identity", ["x"], ["k"])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], "largest", keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], "cast", to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            "choose",
            then_branch=branch("then", PAIR),
            else_branch=branch("else", [kept]),
        ),
    ]
    return graph(nodes, UNSIGNED)


FED = [
    helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], "dequantize"),
]
TWO_GRIDS = [
    PAIR[0],
    helper.make_node("DequantizeLinear", ["q", "t", "z"], ["y"], "dequantize"),
]
FIVE = [constant("s", np.ones(5, np.float32)), constant("z", np.ones(5, np.int8))]
POOLED = [
    PAIR[0],
    helper.make_node("MaxPool", ["q"], ["p"], "pool", kernel_shape=[1, 1]),
    helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"], "dequantize"),
]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (in_a_branch(), "inside an If, Loop or Scan"),
        (graph(FED, UNSIGNED, given=TensorProto.UINT8), "is fed integers"),
        (graph(TWO_GRIDS, [*UNSIGNED, constant("t", np.float32(0.2))]), "have different grids"),
        (graph(POOLED, UNSIGNED), "go elsewhere than to DequantizeLinear"),
        (graph(PAIR, FIVE), "its scales fit no axis of 'x'"),
        (graph(PAIR, [constant("s", np.float32(np.inf)), GRID[1]]), "no finite number"),
    ],
    ids=["branch", "fed", "grids", "pooled", "axis", "infinite"],
)
def test_what_cannot_be_converted_says_why(model: onnx.ModelProto, why: str) -> None:
    findings = found(model)
    assert findings
    assert all(not finding.convertible and why in finding.remedy for finding in findings)
    assert all("quantize the FP32 model with quantlab" in finding.remedy for finding in findings)


OPTIONS: dict[str, dict[str, Any]] = {
    "uint8": {"activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True},
    "uint8 weights": {"activation_type": "QUInt8", "weight_type": "QUInt8"},
    "int8": {"activation_type": "QInt8", "weight_type": "QInt8"},
}


@pytest.mark.parametrize("how", OPTIONS)
def test_what_onnx_runtime_writes_is_refused_and_builds_when_converted(
    how: str, tmp_path: Path
) -> None:
    from onnxruntime.quantization import QuantType

    prepared = tmp_path / "prepared.onnx"
    save(prepare(load(write(residual(), tmp_path / "m.onnx"))).model, prepared)
    options = {
        k: getattr(QuantType, v) if k.endswith("type") else v for k, v in OPTIONS[how].items()
    }
    path = by_onnxruntime(prepared, tmp_path, **options)
    model = settle(load(path))
    findings = check(model)
    assert {"integer-bias", "asymmetric"} <= {finding.rule for finding in findings}
    assert all(finding.convertible for finding in findings)
    assert "Int32" in tensorrt(fixed(onnx.load(path))).refused
    proto = ir.to_proto(convert(model, findings))
    assert check(settle(ir.from_proto(proto))) == ()
    outcome = tensorrt(fixed(proto))
    assert outcome.refused == ""
    assert outcome.types("a0")[:2] == INTEGER


def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the open first axis a size, so that no profile is needed."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    del model.graph.value_info[:]
    return model
