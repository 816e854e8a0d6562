"""A model on the GPU: what is counted is what flows through it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quantlab.collect.cuda import CUDA, OPTIONS, CudaLane
from quantlab.cuda.device import Device, OutOfDeviceMemory
from quantlab.engines import ort_session
from quantlab.engines.base import Array
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.graph import model as graph
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
from quantlab.histogram import Histogram, from_array, merge
from quantlab.records import TensorSpec

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

RESNET = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "resnet.onnx"
BATCHES = (np.arange(32), np.arange(32, 64), np.arange(64, 71))
IMAGES = np.random.default_rng(0).normal(size=(71, 1, 28, 28)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _provider() -> None:
    if CUDA not in ort_session.library().get_available_providers():
        pytest.skip("the installed onnxruntime has no CUDA provider")


def made(model: ir.Model, folder: Path, tensors: list[str], **limits: int) -> CudaLane:
    graph.save(tap(model, tensors), folder / "tapped.onnx")
    return CudaLane(folder / "tapped.onnx", tensors, graph.inputs(model), **limits)


def activations(path: Path, inputs: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    """Return what ONNX Runtime computes on the GPU, brought back by itself."""
    opened = ort_session.session(path, providers=[(CUDA, OPTIONS)], tapped=True)
    return ort_session.run(opened, names, inputs)


def test_resnet_on_the_device_equals_its_activations_brought_back(tmp_path: Path) -> None:
    model = prepare(graph.load(RESNET)).model
    tensors = list(dict.fromkeys(place(model, "tensorrt").tensors))
    (spec,) = graph.inputs(model)
    assert spec.name in tensors  # an input is counted too
    lane = made(model, tmp_path, tensors)
    taps = [name for name in tensors if name != spec.name]
    expected: dict[str, list[Histogram]] = {name: [] for name in tensors}
    for rows in BATCHES:
        arrays = {spec.name: IMAGES[rows]}
        ranges = lane.run(arrays, rows)()
        found = activations(tmp_path / "tapped.onnx", arrays, taps) | arrays
        assert ranges.tolist() == [[found[name].min(), found[name].max()] for name in tensors]
        for name in tensors:
            expected[name].append(from_array(name, found[name], int(rows[0])))
    assert lane.seconds > 0
    assert lane.take() == {name: merge(parts) for name, parts in expected.items()}
    assert all(histogram.total == 0 for histogram in lane.take().values())


def test_queued_batches_equal_batches_waited_for_and_any_thread_may_run(tmp_path: Path) -> None:
    model = prepare(graph.load(RESNET)).model
    tensors = list(dict.fromkeys(place(model, "tensorrt").tensors))
    lane = made(model, tmp_path, tensors)
    name = graph.inputs(model)[0].name
    waited = [lane.run({name: IMAGES[rows]}, rows)() for rows in BATCHES]
    first = lane.take()
    with ThreadPoolExecutor(1) as pool:
        queued = [pool.submit(lane.run, {name: IMAGES[rows]}, rows).result() for rows in BATCHES]
        second = pool.submit(lane.take).result()
    assert first == second
    for late, early in zip(queued, waited, strict=True):
        np.testing.assert_array_equal(late(), early)


def test_other_element_types_are_counted_on_the_host(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], "mul"),
        helper.make_node("Cast", ["square"], ["whole"], "cast", to=TensorProto.INT64),
        helper.make_node("Cast", ["square"], ["half"], "half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["square"], ["double"], "double", to=TensorProto.DOUBLE),
    ]
    outputs = [
        helper.make_tensor_value_info(name, kind, ["N", 5])
        for name, kind in (("whole", 7), ("half", 10), ("double", 11))
    ]
    net = helper.make_model(
        helper.make_graph(nodes, "g", [x], outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    net.ir_version = 10
    onnx.save(net, tmp_path / "m.onnx")
    values = np.array([[1, 2, 3.5, -4, 0], [0.5, 0, np.nan, 2**-12, 7]], np.float32)
    specs = [TensorSpec("x", "float32", ("N", 5))]
    names = ["double", "square", "x", "half"]
    lane = CudaLane(_tapped(tmp_path), [*names, "whole"], specs)
    ranges = lane.run({"x": values}, np.array([8, 9]))()
    square = values * values
    expected = {
        "double": from_array("double", square.astype(np.float64), 8),
        "square": from_array("square", square, 8),
        "x": from_array("x", values, 8),
        "half": from_array("half", square.astype(np.float16), 8),
    }
    found = lane.take()
    assert list(found) == [*names, "whole"]
    assert {name: found[name] for name in names} == expected
    assert found["whole"].total == values.size
    for row, name in zip(ranges, names, strict=False):
        assert row.tolist() == [expected[name].minimum, expected[name].maximum]


def _tapped(folder: Path) -> Path:
    graph.save(tap(graph.load(folder / "m.onnx"), ["square"]), folder / "tapped.onnx")
    return folder / "tapped.onnx"


def test_a_batch_that_does_not_fit_is_not_counted_and_can_be_halved(tmp_path: Path) -> None:
    model = prepare(graph.load(RESNET)).model
    name = graph.inputs(model)[0].name
    tensors = list(dict.fromkeys(place(model, "tensorrt").tensors))
    lane = made(model, tmp_path, tensors, memory=512 << 20)
    lane.run({name: IMAGES}, np.arange(71))
    large = np.tile(IMAGES, (60, 1, 1, 1))
    with pytest.raises(OutOfDeviceMemory, match=r"samples 0 to 4259.*'executor.halve_batch: true'"):
        lane.run({name: large}, np.arange(len(large)))
    lane.run({name: IMAGES}, np.arange(71))
    assert lane.take()[name] == merge([from_array(name, IMAGES)] * 2)


def test_a_model_that_cannot_run_names_the_node(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "C"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 64])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")
    net = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [shape]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    net.ir_version = 10
    onnx.save(net, tmp_path / "m.onnx")
    lane = CudaLane(tmp_path / "m.onnx", ["y"], [TensorSpec("x", "float32", ("N", "C"))])
    with pytest.raises(EngineError, match="'reshape'"):
        lane.run({"x": np.ones((2, 3), np.float32)}, np.arange(2))


def test_a_gpu_that_is_not_there(device: Device) -> None:
    number = device.cuda.Device.count()
    with pytest.raises(EngineUnavailable, match=f"GPU {number} was asked for"):
        Device(number)
