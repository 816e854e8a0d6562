"""Preparation changes the graph and not what it computes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from quantlab.errors import ModelError
from quantlab.graph import PASSES
from quantlab.graph.model import load, opset, save
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from tests.graph.running import relative_error, run
from tests.models import BLOCKS, Net, feeds, residual, stacked, write

OPSETS = [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
blocks = st.lists(st.sampled_from(sorted(BLOCKS)), max_size=4)


def same_outputs(original: onnx.ModelProto, folder: Path) -> ir.Model:
    """Assert that the prepared model computes what the original does; return it."""
    path = write(original, folder / "original.onnx")
    prepared = prepare(load(path)).model
    save(prepared, folder / "prepared.onnx")
    load(folder / "prepared.onnx")
    given = feeds(original)
    expected, got = run(path, given), run(folder / "prepared.onnx", given)
    assert list(got) == list(expected)
    for name, values in expected.items():
        assert relative_error(values, got[name]) < 1e-5  # float32 sums in another order
    return prepared


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blocks=blocks, chosen=st.sampled_from(OPSETS), seed=st.integers(0, 99))
def test_outputs_stay_the_same(tmp_path: Path, blocks: list[str], chosen: int, seed: int) -> None:
    prepared = same_outputs(stacked(blocks, opset=chosen, seed=seed), tmp_path)
    assert opset(prepared) == max(chosen, 13)
    left = {node.op_type for node in prepared.graph}
    assert not left & {"BatchNormalization", "Dropout", "Identity", "Constant"}


@pytest.mark.parametrize("chosen", OPSETS)
def test_every_opset(chosen: int, tmp_path: Path) -> None:
    prepared = same_outputs(stacked(sorted(BLOCKS), opset=chosen), tmp_path)
    assert opset(prepared) == max(chosen, 13)


def test_second_time_nothing_changes(tmp_path: Path) -> None:
    first = prepare(load(write(residual(), tmp_path / "m.onnx")))
    assert first.applied == ("fold_batchnorm", "infer_shapes")
    save(first.model, tmp_path / "prepared.onnx")
    assert prepare(load(tmp_path / "prepared.onnx")).applied == ()


def test_tensors_and_layers_keep_their_names(tmp_path: Path) -> None:
    original = residual()
    prepared = same_outputs(original, tmp_path)
    before = {
        n.name: {o for m in original.graph.node for o in m.output} for n in original.graph.node
    }
    folded = {n.input[0] for n in original.graph.node if n.op_type == "BatchNormalization"}
    kept = {v.name for node in prepared.graph for v in node.outputs}
    assert kept == next(iter(before.values())) - folded
    assert {n.name for n in prepared.graph if n.op_type == "Conv"} == {
        n.name for n in original.graph.node if n.op_type == "Conv"
    }


def test_weights_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    net = Net(opset=9)
    original = net.finish(net.norm(net.conv(net.input(), (16, 16)), 16), weights_as_inputs=True)
    prepared = same_outputs(original, tmp_path)
    assert [v.name for v in prepared.graph.inputs] == ["x"]
    assert [n.op_type for n in prepared.graph] == ["Conv"]


def test_upsample_becomes_resize(tmp_path: Path) -> None:
    net = Net(opset=9)
    x = net.conv(net.input(), (16, 16))
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    prepared = same_outputs(
        net.finish(net.add("Upsample", [x, scales], attributes={"mode": "nearest"})), tmp_path
    )
    assert [n.op_type for n in prepared.graph] == ["Conv", "Resize"]


@pytest.mark.parametrize("stored", ["cast", "scaled", "transposed", "constant"])
def test_weights_stored_small_are_folded(stored: str, tmp_path: Path) -> None:
    net = Net()
    values = (np.arange(16 * 16 * 9) % 11 - 5).reshape(16, 16, 3, 3)
    if stored == "cast":
        raw = net.weight("raw", values.astype(np.float16))
        weight = net.add("Cast", [raw], attributes={"to": TensorProto.FLOAT})
    elif stored == "scaled":
        raw = net.weight("raw", values.astype(np.int8))
        whole = net.add("Cast", [raw], attributes={"to": TensorProto.FLOAT})
        steps = net.weight("steps", np.full((16, 1, 1, 1), 0.01, np.float32))
        weight = net.add("Mul", [whole, steps])
    elif stored == "transposed":
        raw = net.weight("raw", values.astype(np.float32).transpose(3, 2, 1, 0).copy())
        weight = net.add("Transpose", [raw], attributes={"perm": [3, 2, 1, 0]})
    else:
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32))
        weight = net.add("Constant", [], attributes={"value": tensor})
    original = net.finish(net.add("Conv", [net.input(), weight], attributes={"pads": [1] * 4}))
    prepared = same_outputs(original, tmp_path)
    assert [n.op_type for n in prepared.graph] == ["Conv"]


def test_constants_that_would_grow_are_not_folded(tmp_path: Path) -> None:
    net = Net()
    shape = net.weight("shape", np.array([4096, 4096], np.int64))
    big = net.add("Expand", [net.random("seed", (1,)), shape])
    x = net.conv(net.input(), (16, 16))
    total = net.add("Add", [net.add("ReduceMax", [big], attributes={"keepdims": 0}), x])
    prepared = prepare(load(write(net.finish(total), tmp_path / "m.onnx"))).model
    assert "Expand" in {node.op_type for node in prepared.graph}


def test_quantized_model_is_refused(tmp_path: Path) -> None:
    net = Net()
    scale = net.weight("s", np.asarray(0.1, np.float32))
    x = net.add("QuantizeLinear", [net.input(), scale], name="quantize")
    original = net.finish(net.add("DequantizeLinear", [x, scale]))
    with pytest.raises(ModelError, match=r"quantized already: 1 .*'quantize'.*FP32 model"):
        prepare(load(write(original, tmp_path / "m.onnx")))


@pytest.mark.parametrize(("chosen", "made"), [(11, 5), (17, 3)])
def test_normalization_in_training_mode_is_refused(chosen: int, made: int, tmp_path: Path) -> None:
    """Folded, it would give other numbers: there it uses the statistics of the batch."""
    net = Net(opset=chosen)
    net.norm(net.conv(net.input(), (16, 16)), 16, name="batch")
    node = net.nodes[-1]
    node.output.extend(f"statistic{i}" for i in range(1, made))
    if chosen > 13:
        node.attribute.append(helper.make_attribute("training_mode", 1))
    original = net.finish(net.relu("batch_out"))
    with pytest.raises(
        ModelError, match=r"training mode: 1 .* BatchNormalization 'batch'; .*eval\(\)"
    ):
        prepare(load(write(original, tmp_path / "m.onnx")))


def test_dropout_in_training_mode_is_refused(tmp_path: Path) -> None:
    net = Net()
    rate, switch = (
        net.weight("rate", np.array(0.5, np.float32)),
        net.weight("switch", np.ones((), bool)),
    )
    x = net.add("Dropout", [net.conv(net.input(), (16, 16)), rate, switch], name="drop")
    with pytest.raises(ModelError, match=r"training mode: .* Dropout 'drop'"):
        prepare(load(write(net.finish(x), tmp_path / "m.onnx")))


def test_an_input_that_is_an_output_too_keeps_its_name(tmp_path: Path) -> None:
    net = Net()
    original = net.finish(net.conv(net.input(), (16, 16)))
    original.graph.output.append(original.graph.input[0])
    prepared = same_outputs(original, tmp_path)
    assert [value.name for value in prepared.graph.inputs] == ["x"]


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_leaves_its_argument_alone_and_stays_valid(name: str, tmp_path: Path) -> None:
    model = load(write(stacked(sorted(BLOCKS), opset=11), tmp_path / "m.onnx"))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result = PASSES[name](model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    save(result.model, tmp_path / "after.onnx")
    load(tmp_path / "after.onnx")


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_has_nothing_to_do_twice(name: str, tmp_path: Path) -> None:
    model = load(write(stacked(sorted(BLOCKS), opset=11), tmp_path / "m.onnx"))
    for step, run_pass in PASSES.items():
        model = run_pass(model).model
        if step == name:
            break
    assert not PASSES[name](model).changed


def test_operator_that_cannot_be_raised_is_refused_with_the_reason(tmp_path: Path) -> None:
    net = Net(opset=9)
    model = load(write(net.finish(net.conv(net.input(), (16, 16))), tmp_path / "m.onnx"))
    next(iter(model.graph)).op_type = "Convolution"
    with pytest.raises(ModelError, match=r"opset 9 to 13: .+; export it again with opset 13"):
        PASSES["raise_opset"](model)


def test_pooling_written_as_a_mean(tmp_path: Path) -> None:
    net = Net(opset=18)
    x = net.relu(net.conv(net.input(), (16, 32)))
    axes = net.weight("axes", np.array([2, 3]))
    x = net.add("ReduceMean", [x, axes], name="mean", attributes={"keepdims": 0})
    prepared = same_outputs(net.finish(net.gemm(x, (32, 16))), tmp_path)
    assert {d.node: d.rule for d in place(prepared).decisions}["mean"] == "integer-average"


def test_bias_that_is_not_one_a_channel_is_not_folded(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    for shape in [(8, 8), (1, 16, 8, 8), (1,)]:
        x = net.add("Add", [net.conv(x, (16, 16)), net.random(f"b{len(shape)}", shape)])
    twice = net.conv(x, (16, 16))
    shifted = net.add("Add", [twice, net.random("c", (16, 1, 1))])
    prepared = same_outputs(net.finish(net.add("Mul", [shifted, twice])), tmp_path)
    assert [n.op_type for n in prepared.graph].count("Add") == 4


def test_a_subtracted_convolution_is_added_negated_to_the_very_bits(tmp_path: Path) -> None:
    net = Net()
    x = net.input()
    y = net.conv(net.relu(net.conv(x, (16, 16))), (16, 16), name="noise")
    y = net.add("Add", [y, net.random("bias", (16, 1, 1))])
    original = net.finish(net.add("Sub", [x, y], name="denoise"))
    prepared = same_outputs(original, tmp_path)
    assert [n.op_type for n in prepared.graph] == ["Conv", "Relu", "Conv", "Add"]
    given = feeds(original)
    both = [run(tmp_path / f"{name}.onnx", given) for name in ("original", "prepared")]
    assert all(np.array_equal(both[0][name], both[1][name]) for name in both[0])


def test_a_sub_that_no_convolution_is_taken_off_by_stays(tmp_path: Path) -> None:
    net = Net()
    x = net.input()
    seen = net.conv(x, (16, 16))
    shared = net.random("shared", (16, 16, 1, 1))
    twice = [net.add("Conv", [x, shared]) for _ in range(2)]
    parts = [
        net.add("Sub", [seen, x]),  # of the convolution, not by it
        net.add("Sub", [x, net.add("Relu", [seen])]),
        net.add("Sub", [x, twice[0]]),  # turned: the other layer keeps the shared weights
        twice[1],
    ]
    prepared = same_outputs(net.finish(net.add("Concat", parts, attributes={"axis": 1})), tmp_path)
    assert [n.op_type for n in prepared.graph].count("Sub") == 2


def test_normalization_behind_a_transposed_convolution_with_a_bias(tmp_path: Path) -> None:
    net = Net()
    x = net.conv_transpose(net.input(), (16, 24), groups=2)
    x = net.add("Add", [x, net.random("bias", (1, 24, 1, 1))])
    prepared = same_outputs(net.finish(net.norm(x, 24)), tmp_path)
    assert [n.op_type for n in prepared.graph] == ["ConvTranspose"]


def test_normalization_behind_a_product(tmp_path: Path) -> None:
    net = Net()
    x = net.gemm(net.input(shape=("N", 16)), (16, 24))
    prepared = same_outputs(net.finish(net.norm(x, 24)), tmp_path)
    assert [n.op_type for n in prepared.graph] == ["Gemm"]


def test_conv_that_something_else_reads_keeps_its_normalization(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    prepared = same_outputs(net.finish(net.add("Mul", [x, net.norm(x, 16)])), tmp_path)
    assert "BatchNormalization" in {n.op_type for n in prepared.graph}
    first = net.finish(x, "norm1_out")
    assert "BatchNormalization" in {n.op_type for n in same_outputs(first, tmp_path).graph}


def test_nodes_inside_an_if_are_named_and_left_alone(tmp_path: Path) -> None:
    branches = []
    for name in ("yes", "no"):
        net = Net()
        body = net.finish(net.conv("x", (16, 16), name=f"{name}_conv")).graph
        del body.output[0].type.tensor_type.shape.dim[:]
        branches.append(body)
    net = Net()
    net.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, ()))
    x = net.input()
    chosen = net.add(
        "If",
        ["flag"],
        name="choice",
        attributes={"then_branch": branches[0], "else_branch": branches[1]},
    )
    net.add("Add", [chosen, x])
    made = net.finish("add1_out")
    model = prepare(load(write(made, tmp_path / "m.onnx"))).model
    with pytest.raises(
        ModelError,
        match=r"no quantizable layer: 2 Conv \(no_conv, yes_conv\): inside If 'choice'",
    ):
        place(model)


def test_nodes_inside_a_loop_are_named_and_left_alone(tmp_path: Path) -> None:
    info, image = helper.make_tensor_value_info, ("N", 16, 8, 8)
    inner = Net(seed=1)
    for name, kind in (("turn", TensorProto.INT64), ("going", TensorProto.BOOL)):
        inner.inputs.append(info(name, kind, ()))
    x = inner.conv(inner.input("state", image), (16, 16), name="body")
    body = inner.finish(
        inner.add("Identity", ["going"], name="on"), inner.add("Tanh", [x], name="next")
    ).graph
    # What comes out of a loop has no shape that could be inferred.
    body.output[0].CopyFrom(info("on_out", TensorProto.BOOL, ()))
    body.output[1].CopyFrom(info("next_out", TensorProto.FLOAT, image))
    net = Net()
    x = net.relu(net.conv(net.input(shape=image), (16, 16), name="before"))
    count = net.weight("count", np.array(3))
    x = net.add("Loop", [count, "", x], name="loop", attributes={"body": body})
    model = net.finish(net.conv(x, (16, 16), name="behind"))
    model.graph.output[0].CopyFrom(info("behind_out", TensorProto.FLOAT, image))
    decisions = {d.node: d for d in place(same_outputs(model, tmp_path)).decisions}
    quantized = [decisions[name].quantized for name in ("before", "body", "behind")]
    assert quantized == [True, False, True]
    assert "inside Loop 'loop'" in decisions["body"].reason


def test_axes_without_a_real_name_are_open_each_by_itself(tmp_path: Path) -> None:
    """Paddle writes -1 and "?"; two axes of one name would have one size."""
    net = Net()
    model = net.finish(net.conv(net.input(shape=("N", 16, "?", "?")), (16, 16)))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    made = prepare(load(write(model, tmp_path / "model.onnx"))).model
    save(made, tmp_path / "prepared.onnx")
    axes = onnx.load(tmp_path / "prepared.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [(axis.dim_param, axis.dim_value) for axis in axes] == [
        ("", 0),
        ("", 16),
        ("", 0),
        ("", 0),
    ]


def test_axes_with_a_name_keep_it(tmp_path: Path) -> None:
    net = Net()
    model = net.finish(net.conv(net.input(shape=("N", 16, "height", "w2")), (16, 16)))
    made = prepare(load(write(model, tmp_path / "model.onnx"))).model
    assert [str(dim) for dim in made.graph.inputs[0].shape or ()] == ["N", "16", "height", "w2"]
