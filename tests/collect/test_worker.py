"""A worker reads samples once and in order, holds few of them, and says which it could not run."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.collect.lane import Lane, Ranges
from quantlab.collect.work import Unit, Work
from quantlab.collect.worker import Shards, Worker, host_lanes, slices
from quantlab.datasets.base import Array, Batch
from quantlab.errors import EngineError
from quantlab.histogram import Histogram, empty, from_array, merge
from tests.collect.material import (
    TENSORS,
    Exact,
    Given,
    activations,
    definition,
    images,
    maxima,
    network,
    parts,
    work_for,
)
from tests.collect.material import given as dataset
from tests.models import Net, write


class Slow:
    """A lane that takes its time; counts nothing."""

    seconds = 0.0

    def __init__(self, seen: list[list[int]]) -> None:
        self.seen = seen

    def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
        assert len(arrays["x"]) == len(samples)
        time.sleep(0.002)
        self.seen.append(samples.tolist())
        return lambda: np.tile([np.inf, -np.inf], (len(TENSORS), 1))

    def take(self) -> dict[str, Histogram]:
        return {name: empty(name) for name in TENSORS}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("worker"))


@pytest.mark.parametrize(("lanes", "batch", "size"), [(1, 1, 1), (3, 1, 1), (2, 4, 2), (2, 3, 8)])
def test_no_more_slices_wait_than_there_are_lanes(
    model: Path, lanes: int, batch: int, size: int
) -> None:
    source = dataset(images(40))
    seen: list[list[int]] = []
    most = 0

    class Watched(Slow):
        def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
            nonlocal most
            most = max(most, len(source.read) - sum(map(len, seen)))
            return super().run(arrays, samples)

    work = work_for(model, source, batch=batch, shard=40, slice=size, lanes=lanes)
    source.read.clear()

    def open_lanes(*_: object) -> Sequence[Lane]:
        return [Watched(seen) for _ in range(lanes)]

    with Worker(work, open_lanes) as worker:
        part = worker.part(Unit(0, 0))
    assert source.read == list(range(40))
    assert sorted(i for samples in seen for i in samples) == source.read
    assert max(map(len, seen)) == min(size, batch)
    assert part.samples == 40
    # Those in lanes, one slice that waits, and the batch that was read meanwhile.
    assert most <= (lanes + 1) * min(size, batch) + batch


def test_slices_run_at_once_on_as_many_threads_as_there_are_lanes(model: Path) -> None:
    barrier = threading.Barrier(3, timeout=30)

    class Meeting(Slow):
        def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
            barrier.wait()
            return super().run(arrays, samples)

    work = work_for(model, dataset(images(9)), batch=9, slice=1, lanes=3)
    with Worker(work, lambda *_: [Meeting([]) for _ in range(3)]) as worker:
        assert worker.part(Unit(0, 0)).samples == 9


def test_a_pass_opens_its_lanes_once_and_drops_those_before(model: Path) -> None:
    opened: list[tuple[str, ...]] = []
    work = work_for(model, dataset(images(6)), batch=2, shard=2, passes=(TENSORS[:2], TENSORS[2:]))

    def open_lanes(work: Work, tensors: tuple[str, ...]) -> Sequence[Lane]:
        opened.append(tensors)
        return host_lanes(work, tensors)

    with Worker(work, open_lanes) as worker:
        found = [worker.part(unit) for unit in work.units]
    assert opened == list(work.passes)
    assert [part.unit for part in found] == list(work.units)


@settings(max_examples=25)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.sets(st.integers(0, 10)),
    st.randoms(use_true_random=False),
)
def test_units_in_any_order_are_what_their_samples_give(
    model: Path, batch: int, batches: int, missing: set[int], random: Random
) -> None:
    """Also where samples are left out, whole shards of them."""
    x = images(11)
    source = dataset(x, missing=missing - {0})  # one has to be there to be looked at
    work = work_for(model, source, ("relu1_out",), batch=batch, shard=batch * batches)
    units = list(work.units)
    random.shuffle(units)
    for part, unit in zip(parts(work, units), units, strict=True):
        start, stop = work.places(unit.shard)
        kept = [i for i in range(start, stop) if i not in source.missing]
        assert part.unit == unit
        assert part.samples == len(kept)
        expected = [empty("relu1_out")]
        for i in kept:
            [values] = activations(model, ["relu1_out"], {"x": x[i : i + 1]}).values()
            expected.append(from_array("relu1_out", values, i))
        assert part.histograms == {"relu1_out": merge(expected)}
        assert part.first.tolist() == kept[::batch]
        assert part.amax.shape == (len(kept[::batch]), 1)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_batchs_maxima_do_not_depend_on_its_slices(model: Path, batch: int, size: int) -> None:
    x = images(8)
    work = work_for(model, dataset(x), batch=batch, shard=batch * 8, slice=size, lanes=2)
    [part] = parts(work)
    assert part.first.tolist() == list(range(0, 8, batch))
    np.testing.assert_array_equal(part.amax, maxima(model, TENSORS, x, batch))
    assert part.histograms == definition(model, TENSORS, x)


def test_progress_is_told_slice_by_slice(model: Path) -> None:
    told: list[int] = []
    work = work_for(model, dataset(images(7)), batch=4, shard=4, slice=3, lanes=2)
    with Worker(work, host_lanes, told.append) as worker:
        for unit in work.units:
            worker.part(unit)
    assert told == [3, 1, 3]


def test_samples_of_several_shapes_are_batched_by_shape(tmp_path: Path) -> None:
    net = Exact()
    y = net.relu(net.conv(net.input(shape=("N", 2, "H", "W")), (2, 4), name="stem"))
    path = write(net.finish(y), tmp_path / "m.onnx")
    rows = [images(1, seed=i, shape=(2, 6, 6 + 2 * (i % 2)))[0] for i in range(9)]
    work = work_for(path, Given([{"x": row} for row in rows]), ("x", y), batch=2, shard=4)
    found = parts(work)
    assert [part.first.tolist() for part in found] == [[0, 1], [4, 5], [8]]
    for name in ("x", y):
        expected = [
            from_array(name, activations(path, ["x", y], {"x": row[None]})[name], i)
            for i, row in enumerate(rows)
        ]
        assert merge([part.histograms[name] for part in found]) == merge(expected)


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_batch_that_cannot_be_run_is_named_and_nothing_hangs(tmp_path: Path, lanes: int) -> None:
    net = Net()
    shape = net.weight("shape", np.array([-1, 8]))
    flat = net.add("Reshape", [net.input(shape=("N", "C")), shape], name="reshape")
    path = write(net.finish(net.gemm(flat, (8, 4))), tmp_path / "m.onnx")
    rows = [np.ones(8, np.float32)] * 6 + [np.ones(3, np.float32)] + [np.ones(8, np.float32)] * 6
    work = work_for(path, Given([{"x": row} for row in rows]), (flat,), batch=1, lanes=lanes)
    before = threading.active_count()
    with pytest.raises(EngineError, match=r"calibration, samples 6 to 6 \(x \(1, 3\)\).*'reshape'"):
        parts(work)
    assert threading.active_count() == before


@given(st.integers(1, 9), st.integers(1, 9))
def test_slices_of_a_batch_are_its_samples_in_order(size: int, count: int) -> None:
    x = images(count, shape=(2,))
    batch = Batch({"x": x}, None, np.arange(10, 10 + count))
    found = list(slices(batch, size))
    assert np.concatenate([part.arrays["x"] for part in found]).tolist() == x.tolist()
    assert np.concatenate([part.indices for part in found]).tolist() == batch.indices.tolist()
    assert max(part.size for part in found) <= size


@given(st.integers(1, 4), st.integers(1, 12), st.sets(st.integers(0, 12)), st.data())
def test_shards_in_order_are_one_pass_over_the_samples(
    size: int, count: int, missing: set[int], data: st.DataObject
) -> None:
    source = dataset(images(count, shape=(1,)), missing)
    shards = range(-(-count // size))
    order = data.draw(st.one_of(st.just(list(shards)), st.permutations(shards)))
    with source.open(()) as samples:
        reading = Shards(samples, size=size, stop=count)
        for shard in order:
            found = [sample.index for sample in reading.read(shard)]
            places = range(shard * size, min((shard + 1) * size, count))
            assert found == [i for i in places if i not in missing]
    if order == list(shards):
        assert source.read == [i for i in range(count) if i not in missing]
