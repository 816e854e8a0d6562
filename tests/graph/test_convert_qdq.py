"""Converting keeps what a grid covers, to the bit where it can, and costs what is said."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quantlab.errors import ModelError
from quantlab.graph.convert_qdq import as_tensorrt_reads, changes, convert
from quantlab.graph.covering import covering, requantized, span
from quantlab.graph.foreign_qdq import check
from quantlab.graph.model import load, save
from quantlab.graph.prepare import prepare
from quantlab.graph.qdq_points import Point, points, settle
from tests.graph.foreign import CHANNELS, Spoilt, by_onnxruntime, constant, graph
from tests.graph.running import relative_error, run
from tests.models import Array, feeds, residual, write

Floats = NDArray[np.float32]

SCALES = st.floats(2**-20, 2**20, width=32)
GRIDS = st.one_of(
    st.tuples(SCALES, st.integers(0, 255).map(np.uint8)),
    st.tuples(SCALES, st.integers(-128, 127).map(np.int8)),
)


def settled(model: onnx.ModelProto) -> ir.Model:
    return settle(ir.from_proto(model))


def pair(scale: float, zero: np.int8 | np.uint8) -> onnx.ModelProto:
    grid = ["s", "z"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *grid], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", *grid], ["y"], "dequantize"),
    ]
    return graph(nodes, [constant("s", np.float32(scale)), constant("z", zero)])


def point_of(model: onnx.ModelProto, name: str) -> Point:
    return next(p for p in points(settled(model)) if p.node.name == name)


def outputs(model: ir.Model, x: Floats, folder: Path) -> Floats:
    path = folder / "model.onnx"
    save(model, path)
    return run(path, {"x": x})["y"].astype(np.float32)


@given(GRIDS)
def test_the_new_grid_covers_the_old_one_and_none_finer_does(
    grid: tuple[float, np.int8 | np.uint8],
) -> None:
    point = point_of(pair(*grid), "quantize")
    lowest, highest = span(point)
    scale = float(covering(point).scale)
    finest = max(float(highest) / 127, float(-lowest) / 128)
    assert scale == pytest.approx(finest, rel=2**-23)  # float32 rounds it


@given(SCALES)
def test_grids_that_are_shifted_int8_keep_their_scale(scale: float) -> None:
    for zero in (np.uint8(128), np.int8(0)):
        assert float(covering(point_of(pair(scale, zero), "quantize")).scale) == scale


@settings(max_examples=60, deadline=None)
@given(GRIDS, hnp.arrays(np.float32, 64, elements=st.floats(-2, 2, width=32)))
def test_a_converted_tensor_is_off_by_no_more_than_half_the_steps(
    tmp_path_factory: pytest.TempPathFactory,
    grid: tuple[float, np.int8 | np.uint8],
    values: Floats,
) -> None:
    """Within the old range; what lies below a range that begins at 0 stays 0."""
    model = settled(pair(*grid))
    lowest, highest = span(point_of(pair(*grid), "quantize"))
    folder = tmp_path_factory.getbasetemp()
    x = np.tile((values * max(highest, -lowest)).astype(np.float32), 32).reshape(2, CHANNELS, 8, 8)
    findings = check(model)
    before = outputs(model, x, folder)
    after = outputs(convert(model, findings), x, folder)
    scale = float(covering(point_of(pair(*grid), "quantize")).scale) if findings else grid[0]
    inside = (x >= float(lowest)) & (x <= float(highest))
    # Halves of both steps, and float32's rounding of the largest value.
    allowed = (grid[0] + scale) / 2 + 2**-22 * float(max(highest, -lowest))
    assert np.abs(after - before)[inside].max(initial=0) <= allowed
    if lowest == 0:
        assert not after[x < 0].any()


WEIGHTS = hnp.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 255))


def stored(integers: Array, scale: Array, zero: Array, axis: int | None) -> Point:
    along: dict[str, Any] = {} if axis is None else {"axis": axis}
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"], "weights", **along)
    grid = [constant("s", scale), constant("z", zero)]
    return point_of(graph([node], [constant("w", integers), *grid]), "weights")


@given(WEIGHTS, st.integers(0, 255), st.sampled_from([None, 0, 1, 2, -1]), SCALES)
def test_stored_integers_stay_where_they_fit_and_are_rounded_elsewhere(
    integers: Array, zero: int, axis: int | None, scale: float
) -> None:
    shape = () if axis is None else (integers.shape[axis],)
    scales = np.full(shape, scale, np.float32)
    point = stored(integers, scales, np.full(shape, zero, np.uint8), axis)
    made, params = requantized(point)
    steps = integers.astype(int) - zero
    real = steps * float(scale)
    wide = [1] * integers.ndim
    if axis is not None:
        wide[axis] = -1
    new = params.scale.astype(np.float64).reshape(wide)
    others = None if axis is None else tuple(i for i in range(3) if i != axis % 3)
    fits = (steps.min(axis=others) >= -128) & (steps.max(axis=others) <= 127)
    fits = np.broadcast_to(np.reshape(fits, wide), steps.shape)
    assert (made == steps)[fits].all()
    assert made.dtype == np.int8
    error = np.abs(made * new - real) / new
    assert error.max() <= 0.5 + 1e-4  # float32's rounding of 255 steps


def test_negative_and_zero_scales_of_weights_keep_their_values() -> None:
    scales = np.array([0.5, -0.5, 0.0], np.float32)
    integers = np.arange(-12, 12, dtype=np.int8).reshape(3, 4, 2)
    point = stored(integers, scales, np.zeros(3, np.int8), 0)
    made, params = requantized(point)
    assert params.scale.tolist() == [0.5, 0.5, 1.0]
    assert (made * params.scale[:, None, None] == integers * scales[:, None, None]).all()


def test_an_integer_bias_becomes_the_same_floats(tmp_path: Path) -> None:
    model = settled(Spoilt(bias="int32").model())
    x = np.random.default_rng(3).normal(size=(2, CHANNELS, 8, 8)).astype(np.float32)
    made = convert(model, check(model))
    assert (outputs(made, x, tmp_path) == outputs(model, x, tmp_path)).all()
    bias = made.graph.initializers["b_float"].const_value
    assert bias is not None
    assert np.array_equal(bias.numpy(), np.arange(CHANNELS, dtype=np.float32) * np.float32(2e-4))
    assert "b" not in made.graph.initializers


@pytest.mark.parametrize(
    "spoilt",
    [
        Spoilt(zero=np.uint8(128)),
        Spoilt(weights=np.uint8, weight_zero=128),
        Spoilt(scale=np.array([0.02], np.float32), zero=np.zeros(1, np.int8)),
    ],
    ids=["shifted", "shifted weights", "vector"],
)
def test_what_can_stay_exact_stays_exact(spoilt: Spoilt, tmp_path: Path) -> None:
    model = settled(spoilt.model())
    x = np.random.default_rng(4).normal(size=(2, CHANNELS, 8, 8)).astype(np.float32)
    findings = check(model)
    assert (outputs(convert(model, findings), x, tmp_path) == outputs(model, x, tmp_path)).all()
    (change,) = changes(model, findings)
    assert (change.growth, change.noise, change.relu) == (1.0, 0.0, False)


def test_changes_tell_the_growth_of_steps_and_the_noise_of_weights() -> None:
    model = settled(Spoilt(zero=np.uint8(0), weights=np.uint8, weight_zero=0).model())
    told = {change.tensor: change for change in changes(model, check(model))}
    assert told["x"].growth == pytest.approx(255 / 127, rel=1e-6)
    assert told["x"].relu
    # Weights of 0 to 255 steps are rounded to 127: a step's twelfth of noise each, about.
    assert 1 < told["w"].growth <= 255 / 127 + 1e-6
    assert told["w"].noise == pytest.approx(0.02**2 / 12 * 16 * 16 * 9, rel=0.4)


def test_one_scale_of_many_channels_is_the_largest() -> None:
    scales = np.linspace(0.01, 0.08, CHANNELS).astype(np.float32)
    spoilt = Spoilt(scale=scales, zero=np.zeros(CHANNELS, np.int8), axis=1)
    model = settled(spoilt.model())
    (change,) = changes(model, check(model))
    assert change.growth == pytest.approx(8.0, rel=1e-6)
    made = point_of(ir.to_proto(convert(model, check(model))), "quantize")
    assert made.scale is not None
    assert made.scale.shape == ()
    assert float(made.scale) == scales[-1]
    assert made.axis is None


def test_scales_in_fp16_stay_fp16(tmp_path: Path) -> None:
    half = TensorProto.FLOAT16
    proto = pair(0.25, np.uint8(0))
    proto.graph.initializer[0].CopyFrom(constant("s", np.float16(1e-6)))
    proto.opset_import[0].version = 19
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.elem_type = half
    model = settled(proto)
    made = convert(model, check(model))
    save(made, tmp_path / "half.onnx")
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    scale = made.graph.initializers["x_scale"].const_value
    assert scale is not None
    assert scale.dtype == ir.DataType.FLOAT16
    assert float(scale.numpy()) == float(np.float16(np.float32(np.float16(1e-6)) * 255 / 127))


def test_weights_that_are_quantized_in_the_graph_keep_a_scale_a_channel() -> None:
    grid = ["s", "z"]
    nodes = [
        helper.make_node("QuantizeLinear", ["w", *grid], ["q"], "quantize", axis=0),
        helper.make_node("DequantizeLinear", ["q", *grid], ["d"], "dequantize", axis=0),
        helper.make_node("Conv", ["x", "d"], ["y"], "conv", pads=[1] * 4),
    ]
    weights = np.abs(np.random.default_rng(1).normal(size=(CHANNELS, CHANNELS, 3, 3)))
    scales = np.linspace(0.01, 0.02, CHANNELS).astype(np.float32)
    values = [constant("w", weights.astype(np.float32)), constant("s", scales)]
    model = settled(graph(nodes, [*values, constant("z", np.zeros(CHANNELS, np.uint8))]))
    made = convert(model, check(model))
    point = point_of(ir.to_proto(made), "quantize")
    assert point.axis == 0
    assert point.scale == pytest.approx(scales.astype(float) * 255 / 127, rel=1e-6)


def quantized(folder: Path) -> tuple[Path, Path]:
    """Return a prepared network and what ONNX Runtime's quantizer makes of it in UINT8."""
    from onnxruntime.quantization import QuantType

    prepared = folder / "prepared.onnx"
    save(prepare(load(write(residual(channels=32), folder / "m.onnx"))).model, prepared)
    return prepared, by_onnxruntime(prepared, folder, activation_type=QuantType.QUInt8)


def test_the_relus_that_zero_points_stood_in_for_are_written_out(tmp_path: Path) -> None:
    """ONNX Runtime leaves a Relu out where UINT8 cuts off at 0; INT8 alone would let it through."""
    prepared, path = quantized(tmp_path)
    model = settle(load(path))
    assert not any(node.op_type == "Relu" for node in model.graph)
    made, read = tmp_path / "made.onnx", tmp_path / "read.onnx"
    findings = check(model)
    save(convert(model, findings), made)
    save(as_tensorrt_reads(model), read)
    x = feeds(onnx.load(path), batch=8, seed=7)
    (floats,), (own,), (converted,), (misread,) = (
        run(p, x).values() for p in (prepared, path, made, read)
    )
    assert relative_error(floats, own) < 0.04
    assert relative_error(own, converted) < 0.03
    assert relative_error(floats, converted) < 0.05
    assert relative_error(own, misread) > 1  # what TensorRT would compute, were nothing done
    cut = {change.tensor for change in changes(model, findings) if change.relu}
    relus = [node for node in load(made).graph if node.op_type == "Relu"]
    inserted = {value.name for node in relus for value in node.inputs if value is not None}
    assert cut == inserted
    assert cut


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Softmax"])
def test_no_relu_is_written_behind_what_is_never_negative(op: str) -> None:
    model = pair(0.1, np.uint8(0))
    before = helper.make_node(op, ["x"], ["r"], "before")
    model.graph.node[0].input[0] = "r"
    model.graph.node.insert(0, before)
    found = settled(model)
    (change,) = changes(found, check(found))
    assert not change.relu
    ops = [node.op_type for node in convert(found, check(found)).graph]
    assert ops == [op, "QuantizeLinear", "DequantizeLinear"]


def test_only_the_tensors_of_the_findings_are_converted_and_the_model_stays() -> None:
    proto = Spoilt(zero=np.uint8(0), bias="int32").model()
    model = settled(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    findings = check(model)
    bias = [finding for finding in findings if finding.rule == "integer-bias"]
    made = convert(model, bias)
    assert [finding.rule for finding in check(made)] == ["unsigned"]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert ir.to_proto(convert(model, ())).graph.node == ir.to_proto(model).graph.node


def test_what_cannot_be_converted_is_an_error_that_says_why() -> None:
    model = settled(Spoilt(zero=np.int16(0), opset=21, bias="int32").model())
    with pytest.raises(ModelError, match=r"1 of 2 findings .* QuantizeLinear 'quantize' of 'x'"):
        convert(model, check(model))
