"""A lane counts what the model computes, of every type and shape, and nothing twice."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from quantlab.collect.lane import HostLane
from quantlab.collect.worker import host_lanes
from quantlab.datasets.base import Array
from quantlab.errors import EngineError
from quantlab.histogram import Histogram, from_array, merge
from tests.collect.material import (
    TENSORS,
    activations,
    definition,
    images,
    lane_for,
    network,
    work_for,
)
from tests.collect.material import given as dataset
from tests.models import Net, write

TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
}


def indices(start: int, stop: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.arange(start, stop, dtype=np.int64)


def counted(lane: HostLane, x: Array, cuts: Sequence[int]) -> dict[str, Histogram]:
    """Run the rows of ``x`` in slices that end at ``cuts`` and at its end."""
    edges = [0, *sorted(set(cuts) - {0, len(x)}), len(x)]
    for start, stop in pairwise(edges):
        lane.run({"x": x[start:stop]}, indices(start, stop))
    return lane.take()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("lane"))


@pytest.fixture(scope="module")
def lane(model: Path) -> HostLane:
    return lane_for(model, TENSORS, {"x": images(1)[0]}, 9)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 8)))
def test_slices_of_any_size_give_the_definition(
    lane: HostLane, model: Path, cuts: list[int]
) -> None:
    """Buffers are used again, from one collection to the next too."""
    x = images(9)
    found = counted(lane, x, cuts)
    assert list(found) == list(TENSORS)
    assert found == definition(model, TENSORS, x)


def test_a_slices_ranges_are_its_own_in_the_order_asked_for(lane: HostLane, model: Path) -> None:
    x = images(4)
    waits = [lane.run({"x": x[i : i + 1]}, indices(i, i + 1)) for i in (3, 0)]
    for i, wait in zip((3, 0), waits, strict=True):
        values = activations(model, TENSORS, {"x": x[i : i + 1]})
        expected = [[float(values[t].min()), float(values[t].max())] for t in TENSORS]
        assert wait().tolist() == expected
    lane.take()


@pytest.mark.parametrize("kind", TYPES)
def test_every_element_type_is_counted_by_value(kind: int, tmp_path: Path) -> None:
    net = Net()
    x = net.input(shape=("N", 6))
    tapped = net.add("Cast", [x], attributes={"to": kind}, name="cast")
    used = net.add("Cast", [tapped], attributes={"to": TensorProto.FLOAT})
    path = write(net.finish(net.relu(used)), tmp_path / "m.onnx")
    values = np.abs(images(5, shape=(6,))) if kind != TensorProto.FLOAT else images(5, shape=(6,))
    lane = lane_for(path, [tapped, "relu2_out"], {"x": values[0]}, 3)
    found = counted(lane, values, [3])
    assert found[tapped] == from_array(tapped, values.astype(TYPES[kind]))
    assert found["relu2_out"].total == values.size


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL])
def test_inputs_of_every_type_are_counted(kind: int, tmp_path: Path) -> None:
    net = Net()
    x = net.input(shape=("N", 6), dtype=kind)
    cast = net.add("Cast", [x], attributes={"to": TensorProto.FLOAT}, name="cast")
    path = write(net.finish(net.relu(cast)), tmp_path / "m.onnx")
    values = np.abs(images(4, shape=(6,))).astype(TYPES[kind])
    found = counted(lane_for(path, ["x", cast], {"x": values[0]}, 4), values, [1])
    assert found["x"] == from_array("x", values)
    assert found[cast] == from_array(cast, values.astype(np.float32))


def test_inputs_alone_need_no_inference(model: Path) -> None:
    x = images(3)
    lane = lane_for(model, ["x"], {"x": x[0]}, 3)
    found = counted(lane, x, [2])
    assert found == {"x": from_array("x", x)}
    assert lane.seconds == 0


@pytest.mark.parametrize("tensors", [["hits_out"], ["hits_out", "relu0_out", "x"]])
@pytest.mark.parametrize("first_fits", [False, True])
def test_shapes_that_depend_on_the_data_are_found_out(
    tensors: list[str], tmp_path: Path, *, first_fits: bool
) -> None:
    """NonZero of a slice that has other numbers of zeros than the first sample had."""
    net = Net()
    relu = net.relu(net.input(shape=("N", 6)))
    hits = net.add("NonZero", [relu], name="hits")
    out = net.add("Cast", [hits], attributes={"to": TensorProto.FLOAT})
    path = write(net.finish(out, relu), tmp_path / "m.onnx")
    x = images(6, shape=(6,))
    x[0] = [1, 2, 0, 0, 0, 0]
    if first_fits:
        x[1] = x[0]
    lane = lane_for(path, tensors, {"x": x[0]}, 2)
    expected = []
    for start in range(0, 6, 2):
        part = x[start : start + 2]
        lane.run({"x": part}, indices(start, start + 2))
        expected.append(activations(path, tensors, {"x": part}))
    assert len({values["hits_out"].shape for values in expected}) > 1
    found = lane.take()
    for name in tensors:
        assert found[name] == merge([from_array(name, values[name]) for values in expected])


def test_an_empty_tensor_has_no_element(tmp_path: Path) -> None:
    net = Net()
    relu = net.relu(net.input(shape=("N", 4)))
    out = net.add("Cast", [net.add("NonZero", [relu], name="hits")], attributes={"to": 1})
    path = write(net.finish(out, relu), tmp_path / "m.onnx")
    lane = lane_for(path, ["hits_out", relu], {"x": np.ones(4, np.float32)}, 2)
    x = np.zeros((4, 4), np.float32)
    found = counted(lane, x, [2])
    assert found["hits_out"].total == 0
    assert found[relu] == from_array(relu, x)


def test_samples_of_several_shapes(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 2, "H", "W")), (2, 4), name="stem"))
    path = write(net.finish(x), tmp_path / "m.onnx")
    tensors = ["x", "stem_out", x]
    lane = lane_for(path, tensors, {"x": images(1)[0]}, 3)
    seen = [images(n, shape=shape) for n, shape in ((3, (2, 6, 6)), (2, (2, 4, 9)), (1, (2, 6, 6)))]
    for part in seen:
        lane.run({"x": part}, indices(0, len(part)))
    found = lane.take()
    computed = [activations(path, tensors, {"x": part}) for part in seen]
    for name in tensors:
        assert found[name] == merge([from_array(name, values[name]) for values in computed])


def test_scalars_and_tensors_without_batch_axis_are_counted_for_each_sample_of_a_slice(
    tmp_path: Path,
) -> None:
    net = Net()
    x = net.input(shape=("N", 4))
    scalar = net.add("ReduceSum", [x], name="all", attributes={"keepdims": 0})
    axis = net.weight("axis", np.array([0]))
    row = net.add("ReduceSum", [x, axis], name="row", attributes={"keepdims": 0})
    path = write(net.finish(net.add("Mul", [scalar, row], name="end")), tmp_path / "m.onnx")
    values = images(4, shape=(4,))
    values[3, 1] = np.nan
    lane = lane_for(path, [scalar, row], {"x": values[0]}, 2)
    found = counted(lane, values, [2])
    assert (found[scalar].total, found[scalar].nans, found[scalar].first_nan) == (2, 2, 2)
    assert (found[row].total, found[row].nans, found[row].first_nan) == (14, 2, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_what_is_not_finite_is_the_samples_whatever_the_slices(size: int, tmp_path: Path) -> None:
    net = Net()
    y = net.add("Neg", [net.input(shape=("N", 6))], name="neg")
    path = write(net.finish(y), tmp_path / "m.onnx")
    x = images(7, shape=(6,)).astype(np.float32)
    x[4, 2], x[6, 0], x[5, 5] = np.nan, np.nan, -np.inf
    lane = lane_for(path, ["x", y], {"x": x[0]}, size)
    found = counted(lane, x, range(0, 7, size))
    assert found == {"x": from_array("x", x), y: from_array(y, np.negative(x))}
    assert (found[y].first_nan, found[y].first_inf) == (4, 5)


def test_what_was_counted_does_not_change_when_the_lane_goes_on(lane: HostLane) -> None:
    x = images(4)
    before = counted(lane, x[:2], [])
    kept = {name: from_array("t", part.counts) for name, part in before.items()}
    counted(lane, 100 * x, [])
    assert {name: from_array("t", part.counts) for name, part in before.items()} == kept
    assert lane.seconds == 0


@pytest.mark.parametrize("fits_first", [False, True])
def test_a_batch_that_cannot_be_run_names_the_node(tmp_path: Path, *, fits_first: bool) -> None:
    net = Net()
    shape = net.weight("shape", np.array([-1, 64]))
    x = net.add("Reshape", [net.input(shape=("N", "C")), shape], name="reshape")
    path = write(net.finish(net.gemm(x, (64, 16))), tmp_path / "m.onnx")
    lane = lane_for(path, [x], {"x": np.ones(64, np.float32)}, 2)
    if fits_first:
        lane.run({"x": np.ones((2, 64), np.float32)}, indices(0, 2))
    with pytest.raises(EngineError, match="'reshape'"):
        lane.run({"x": np.ones((2, 3), np.float32)}, indices(0, 2))
    found = lane.take()[x]
    assert found.total == (128 if fits_first else 0)


def test_a_tensor_that_shrinks_with_the_batch(tmp_path: Path) -> None:
    net = Net()
    x = net.input(shape=("N", 6))
    size = net.add("Shape", [x], attributes={"end": 1})
    end, axis = net.weight("end", np.array([99])), net.weight("axis", np.array([1]))
    rest = net.add("Slice", [x, size, end, axis], name="rest")
    path = write(net.finish(net.relu(rest)), tmp_path / "m.onnx")
    values = images(9, shape=(6,))
    found = counted(lane_for(path, [rest], {"x": values[0]}, 9), values, [2])
    assert found[rest] == from_array(rest, values[:2, 2:])


def test_lanes_of_one_session_do_not_mix(model: Path) -> None:
    x = images(4)
    one, other = host_lanes(work_for(model, dataset(x), lanes=2, slice=2), TENSORS)
    one.run({"x": x[:2]}, indices(0, 2))
    other.run({"x": x[2:]}, indices(2, 4))
    assert one.take() == definition(model, TENSORS, x[:2])
    assert other.take() == definition(model, TENSORS, x[2:])
