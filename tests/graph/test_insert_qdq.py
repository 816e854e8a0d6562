"""The Q/DQ model is valid, close to FP32, and written as TensorRT's parser wants it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.errors import CacheError, ModelError
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import load, save
from quantlab.graph.placement import POLICIES, place
from quantlab.qparams import fake_quantize, per_channel, quantize_bias
from tests.graph.cases import prepared
from tests.graph.running import relative_error, run, thresholds
from tests.models import BLOCKS, Net, feeds, residual, stacked

blocks = st.lists(st.sampled_from(sorted(BLOCKS)), max_size=3)


POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


def quantized(model: ir.Model, given: dict[str, np.ndarray], folder: Path, policy: str) -> ir.Model:
    placement = place(model, policy)
    found = thresholds(model, placement.tensors, given, folder)
    return insert_qdq(model, placement, found, policy=policy)


@pytest.mark.parametrize("policy", POLICIES)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blocks=blocks, seed=st.integers(0, 99))
def test_any_network_is_close_to_fp32(
    policy: str, tmp_path: Path, blocks: list[str], seed: int
) -> None:
    original = stacked(blocks, seed=seed)
    given = feeds(original)
    model = prepared(original, tmp_path)
    save(model, tmp_path / "prepared.onnx")
    save(quantized(model, given, tmp_path, policy), tmp_path / "int8.onnx")
    load(tmp_path / "int8.onnx")
    expected = run(tmp_path / "prepared.onnx", given)
    got = run(tmp_path / "int8.onnx", given)
    assert list(got) == list(expected)
    for name, values in expected.items():
        # Five blocks of 8 bits each: noise of about 1 % a layer adds up to some per cent.
        assert relative_error(values, got[name]) < 0.12


@pytest.mark.parametrize("policy", POLICIES)
def test_written_as_the_parsers_want_it(policy: str, tmp_path: Path) -> None:
    original = residual()
    model = prepared(original, tmp_path)
    made = quantized(model, feeds(original), tmp_path, policy)
    types = {ir.DataType.INT8} | ({ir.DataType.UINT8} if POLICIES[policy].unsigned else set())
    nodes = [n for n in made.graph if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert nodes
    biases = {node for node in nodes if len(node.inputs) == 2}
    assert len(biases) == (policy == "onnxruntime"), "of the Gemm whose output stays float32"
    for node in nodes:
        if node in biases:
            continue
        _, scale, zero = (v.const_value for v in node.inputs if v is not None)
        data, *_ = node.inputs
        if data is not None and data.const_value is not None:
            assert node.attributes["axis"].as_int() == 0
            assert data.dtype == ir.DataType.INT8
        assert scale is None or (scale.dtype == ir.DataType.FLOAT and (scale.numpy() > 0).all())
        assert zero is not None
        assert zero.dtype in types
        assert scale is not None
        assert zero.shape == scale.shape
        if policy != "onnxruntime":
            assert not zero.numpy().any()


def test_weights_are_stored_small_and_the_float_ones_are_gone(tmp_path: Path) -> None:
    original = residual()
    model = prepared(original, tmp_path)
    made = quantized(model, feeds(original), tmp_path, "tensorrt")
    assert "a0.weight" in model.graph.initializers, "the argument stays as it is"
    assert "a0.weight" not in made.graph.initializers
    stored = made.graph.initializers["a0.weight_quantized"].const_value
    assert stored is not None
    assert stored.dtype == ir.DataType.INT8
    float_weights = model.graph.initializers["a0.weight"].const_value
    assert float_weights is not None
    array = float_weights.numpy()
    scale = made.graph.initializers["a0.weight_scale"].const_value
    assert scale is not None
    real = stored.numpy() * scale.numpy().reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(real, fake_quantize(array, per_channel(array, 0)))


def test_tensors_and_outputs_keep_their_names(tmp_path: Path) -> None:
    original = residual()
    model = prepared(original, tmp_path)
    made = quantized(model, feeds(original), tmp_path, "tensorrt")
    before = {v.name for node in model.graph for v in node.outputs}
    assert before <= {v.name for node in made.graph for v in node.outputs}
    assert [v.name for v in made.graph.outputs] == [v.name for v in model.graph.outputs]
    assert [n.name for n in made.graph if n.op_type == "Conv"] == [
        n.name for n in model.graph if n.op_type == "Conv"
    ]


def test_a_tensor_is_quantized_once_for_all_its_readers(tmp_path: Path) -> None:
    original = residual()
    made = quantized(prepared(original, tmp_path), feeds(original), tmp_path, "tensorrt")
    sources = [
        n.inputs[0].name for n in made.graph if n.op_type == "QuantizeLinear" and n.inputs[0]
    ]
    assert len(sources) == len(set(sources))


def test_names_that_are_taken_are_not_taken_again(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="conv")
    net.nodes[-1].output[0] = "x_quantized"
    original = net.finish(net.conv("x_quantized", (16, 16)))
    assert x == "conv_out"
    model = prepared(original, tmp_path)
    save(quantized(model, feeds(original), tmp_path, "tensorrt"), tmp_path / "int8.onnx")
    load(tmp_path / "int8.onnx")


def test_a_tensor_that_is_always_zero_gets_a_safe_scale(tmp_path: Path) -> None:
    original = residual()
    model = prepared(original, tmp_path)
    placement = place(model)
    found = thresholds(model, placement.tensors, feeds(original), tmp_path)
    found["x"] = replace(found["x"], amax=0.0, threshold=0.0)
    made = insert_qdq(model, placement, found)
    scale = made.graph.initializers["x_scale"].const_value
    assert scale is not None
    assert scale.numpy() == 1.0


def test_missing_thresholds_are_all_named(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    placement = place(model)
    with pytest.raises(CacheError, match=r"\d+ of \d+ .*: x, .*calibrate this model again"):
        insert_qdq(model, placement, {})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    net = Net()
    x = net.input()
    weights = np.full((16, 16, 1, 1), value, np.float32)
    original = net.finish(net.add("Conv", [x, net.weight("broken", weights)]))
    with pytest.raises(ModelError, match="weights 'broken' hold NaN or infinite values"):
        quantized(prepared(original, tmp_path), feeds(original), tmp_path, "tensorrt")


def test_tied_tensors_share_the_zero_point(tmp_path: Path) -> None:
    """Else ONNX Runtime's integer MaxPool, which has one grid, is not formed."""
    net = Net()
    x = net.add("MaxPool", [net.conv(net.input(), (16, 16))], name="pool", attributes=POOL)
    original = net.finish(net.relu(net.conv(net.conv(x, (16, 16)), (16, 16))))
    model = prepared(original, tmp_path)
    placement = place(model, "onnxruntime")
    found = thresholds(model, placement.tensors, feeds(original), tmp_path)
    (tied,) = placement.ties
    found |= {name: replace(found[name], threshold=1.0, minimum=-1.0) for name in tied}
    found["pool_out"] = replace(found["pool_out"], minimum=0.5)
    weights = insert_qdq(model, placement, found, policy="onnxruntime").graph.initializers
    zeros = [weights[f"{name}_zero_point"].const_value for name in tied]
    assert [int(zero.numpy()) for zero in zeros if zero is not None] == [128, 128]


def test_placement_of_another_model_is_refused(tmp_path: Path) -> None:
    placement = place(prepared(residual(), tmp_path))
    other = prepared(stacked([]), tmp_path)
    found = thresholds(
        prepared(residual(), tmp_path), placement.tensors, feeds(residual()), tmp_path
    )
    with pytest.raises(ModelError, match="is not in the graph"):
        insert_qdq(other, placement, found)


def test_weights_read_by_a_float_node_too_stay_beside(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="conv")
    scaled = net.add("Mul", ["conv.weight", net.input("scale", (1,))])
    original = net.finish(net.add("Conv", [x, scaled], attributes={"pads": [1] * 4}))
    model = prepared(original, tmp_path)
    made = quantized(model, feeds(original), tmp_path, "tensorrt")
    assert {"conv.weight", "conv.weight_quantized"} <= set(made.graph.initializers)
    save(made, tmp_path / "int8.onnx")
    load(tmp_path / "int8.onnx")


def test_a_bias_is_rounded_on_the_grid_of_the_products(tmp_path: Path) -> None:
    original = residual()
    model = prepared(original, tmp_path)
    made = quantized(model, feeds(original), tmp_path, "onnxruntime").graph.initializers
    name = "classifier.bias"
    stored, scale = (made[f"{name}_{part}"].const_value for part in ("quantized", "scale"))
    assert stored is not None
    assert scale is not None
    assert stored.dtype == ir.DataType.INT32
    before = model.graph.initializers[name].const_value
    assert before is not None
    error = np.abs(stored.numpy() * scale.numpy() - before.numpy())
    assert (error <= scale.numpy() * 0.5001).all()
    assert name not in made


def test_a_bias_beyond_int32_is_clipped() -> None:
    bias = np.array([1e30, -np.inf, 0.25, np.inf], np.float32)
    got = quantize_bias(bias, np.array(0.5, np.float32))
    np.testing.assert_array_equal(got, [2**31 - 1, -(2**31), 0, 2**31 - 1])
