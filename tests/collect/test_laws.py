"""On a real network, whose arithmetic rounds: the same bytes however the work is cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantlab.collect.collector import collect
from quantlab.collect.cut import Request, cut
from quantlab.collect.executor import Local
from quantlab.collect.gather import Gathered
from quantlab.errors import CalibrationError
from quantlab.graph import model as graph
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.histogram import Histogram
from tests.collect.material import Given, given
from tests.models import Net, write

ROOT = Path(__file__).resolve().parents[2]
RESNET = ROOT / "examples" / "fashion_mnist" / "resnet.onnx"


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Ask for every tensor of a residual network: also those that would be fused away."""
    path = tmp_path_factory.mktemp("resnet") / "prepared.onnx"
    model = prepare(graph.load(RESNET)).model
    graph.save(model, path)
    placed = place(model, "tensorrt")
    (spec,) = inputs = graph.inputs(model)
    x = np.random.default_rng(0).normal(size=(12, 1, 28, 28)).astype(np.float32)
    return Request(
        model=path,
        inputs=inputs,
        tensors=tuple(dict.fromkeys((*placed.tensors, *placed.implicit))),
        dataset=Given([{spec.name: row} for row in x]),
        batch=4,
    )


def found(request: Request, passes: int, **changes: Any) -> dict[str, Histogram]:
    work = cut(request, Local(threads=2))
    size = -(-len(work.tensors) // passes)
    groups = tuple(work.tensors[i : i + size] for i in range(0, len(work.tensors), size))
    return dict(collect(replace(work, passes=groups, **changes), Local()).histograms)


@pytest.mark.parametrize(
    ("passes", "changes"),
    [(2, {}), (7, {}), (20, {"slice": 2}), (1, {"slice": 1, "lanes": 1}), (1, {"shard": 4})],
)
def test_no_cut_changes_a_bin(request_: Request, passes: int, changes: dict[str, int]) -> None:
    assert len(request_.tensors) == 20
    assert found(request_, passes, **changes) == found(request_, 1)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_tensor_that_samples_share_weighs_the_same_in_any_batch(
    tmp_path: Path, size: int
) -> None:
    net = Net()
    x = net.input(shape=("N", 4))
    shape = net.add("Shape", [x], name="shape")
    axis = net.weight("one", np.array([1]))
    width = net.add("Gather", [shape, axis], name="width")
    position = net.add("Cast", [width], name="position", attributes={"to": 1})
    y = net.add("Add", [x, position], name="sum")
    path = write(net.finish(y), tmp_path / "model.onnx")
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    request = Request(
        path, graph.inputs(graph.reload(path)), (position, y), given(values), batch=size
    )
    histograms = found(request, 1)
    assert histograms[position].total == 6
    assert histograms[y].total == 24


def test_samples_that_differ_between_passes_are_found_out(request_: Request) -> None:
    work = cut(request_, Local(threads=1))
    work = replace(work, passes=(work.tensors[:1], work.tensors[1:]), shard=12)
    first, second = Local().parts(work, work.units, lambda _: None)
    gathered = Gathered(work.passes)
    gathered.add(first)
    with pytest.raises(CalibrationError, match="shard 0 were not the same in another pass"):
        gathered.add(replace(second, fingerprint=second.fingerprint + 1))
    gathered.add(second)
    assert len(gathered.done) == 2


def test_a_model_that_takes_one_sample_at_a_time_is_run_so(tmp_path: Path) -> None:
    net = Net()
    shape = net.weight("to", np.array([1, 2, 2]))
    y = net.add("Reshape", [net.input(shape=("N", 4)), shape], name="reshape")
    path = write(net.finish(net.relu(y)), tmp_path / "model.onnx")
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    request = Request(path, graph.inputs(graph.reload(path)), (y,), given(values), batch=4)
    work = cut(request, Local(threads=2))
    assert work.slice == 1
    assert found(request, 1)[y].total == 24
