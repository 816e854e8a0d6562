"""ONNX Runtime reads and writes memory that it is given by address.

Here the memory is the host's and the provider the CPU's; tests/cuda/test_deploy.py does the same
on a GPU.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantlab.engines.base import Array
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.engines.ort_cuda import CudaSession, axes, shape_of
from quantlab.engines.ort_session import session
from quantlab.errors import ConfigError, EngineError
from quantlab.records import EngineInfo, TensorSpec
from tests.engines.models_for_engines import expected, odd_inputs, odd_net


def described(inputs: Mapping[str, Array]) -> EngineInfo:
    return EngineInfo("b", "d", 1, "fp32", "f32", (), tuple(inputs))


def executor(model: onnx.ModelProto) -> CudaSession:
    return CudaSession(session(model.SerializeToString()), ("cpu", 0), describe=described)


def memory(specs: tuple[TensorSpec, ...], shapes: Mapping[str, object]) -> dict[str, Array]:
    return {
        spec.name: np.full(shapes[spec.name], 7).astype(spec.dtype)  # type: ignore[call-overload]
        for spec in specs
        if shapes.get(spec.name) is not None
    }


def addresses(*arrays: Mapping[str, Array]) -> dict[str, int]:
    return {name: array.ctypes.data for each in arrays for name, array in each.items()}


def test_outputs_come_to_their_addresses_at_every_shape() -> None:
    model = odd_net()
    made = executor(model)
    for batch in (3, 3, 1, 5):
        inputs = {name: np.array(value) for name, value in odd_inputs(batch).items()}
        fit = made.fit({name: value.shape for name, value in inputs.items()})
        assert fit.largest == {}
        assert fit.outputs == {
            "sum": (batch, 4),
            "alias": (batch, 4),
            "same_ids": (batch,),
            "largest": None,  # of a scalar ONNX Runtime does not say that its rank is known
        }
        found = memory(made.outputs, fit.outputs)
        for _ in range(2):
            late = made.enqueue(addresses(inputs, found))
            assert list(late) == ["largest"]
            wanted = expected(model, inputs)
            for name, value in found.items():
                np.testing.assert_allclose(value, wanted[name], rtol=1e-5)  # type: ignore[arg-type]
            assert late["largest"].shape == ()
            read = ctypes.c_float.from_address(late["largest"].address).value
            assert read == pytest.approx(float(wanted["largest"]))
            inputs["x"][...] = np.roll(inputs["x"], 1)  # in place: read at each inference
    assert made.describe(inputs, {}).notes == tuple(inputs)
    made.close()


def test_a_shape_that_depends_on_the_data_is_told_after_each_inference() -> None:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"], "nonzero"),
        helper.make_node("Neg", ["x"], ["less"], "neg"),
    ]
    graph = helper.make_graph(
        nodes,
        "late",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("places", TensorProto.INT64, [1, "M"]), value("less", TensorProto.FLOAT, ["N"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made = executor(model)
    x, less = np.zeros(6, np.float32), np.empty(6, np.float32)
    assert made.fit({"x": x.shape}).outputs == {"places": None, "less": (6,)}
    for count in (2, 6, 0, 5):
        x[:] = np.arange(6) < count
        late = made.enqueue({"x": x.ctypes.data, "less": less.ctypes.data})
        assert late["places"].shape == (1, count)
        if count:
            found = (ctypes.c_int64 * count).from_address(late["places"].address)
            assert list(found) == list(range(count))
        np.testing.assert_array_equal(less, -x)


def test_what_fails_is_an_engine_error() -> None:
    made = executor(odd_net())
    inputs = odd_inputs(3) | {"ids": np.arange(2)}
    fit = made.fit({name: np.shape(value) for name, value in inputs.items()})
    assert fit.outputs["sum"] is None  # N is 3 and 2: it tells nothing
    arrays = {name: np.array(value) for name, value in inputs.items()}
    with pytest.raises(EngineError, match=r"could not run the model: .*'add'"):
        made.enqueue(addresses(arrays))


def test_a_shape_is_known_where_every_axis_is() -> None:
    inputs = (
        TensorSpec("a", "float32", ("N", 3, None)),
        TensorSpec("b", "float32", ("N", "M")),
        TensorSpec("c", "float32", ("M",)),
    )
    sizes = axes(inputs, {"a": (2, 3, 9), "b": (2, 4), "c": (5,)})
    assert sizes == {"N": 2}
    assert shape_of(TensorSpec("y", "float32", ("N", 7)), sizes) == (2, 7)
    for shape in (("M", 7), (None, 7), ("K",), ()):
        assert shape_of(TensorSpec("y", "float32", shape), sizes) is None


def test_a_graph_without_a_gpu_is_a_mistake_of_the_config() -> None:
    with pytest.raises(ConfigError, match="CUDA graphs on a GPU only; set 'provider: cuda'"):
        OnnxRuntime(cuda_graph=True)


@pytest.mark.parametrize(("op", "says"), [("If", "If decides what runs"), ("Relu", "")])
def test_control_flow_cannot_be_captured(tmp_path: Path, op: str, says: str) -> None:
    from quantlab.engines import ort_cuda

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], "only")],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    found = ort_cuda.control_flow(tmp_path / "m.onnx")
    assert found.startswith(says)
    assert bool(found) is bool(says)
