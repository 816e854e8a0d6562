"""The result is a function of the samples: however they are cut, run, ordered and resumed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.collect import saved
from quantlab.collect.collector import Checkpoint, Collection, check_unchanged, collect
from quantlab.collect.executor import Local
from quantlab.collect.gather import Gathered, load
from quantlab.collect.work import Part, Unit, Work
from quantlab.datasets.base import Array
from quantlab.errors import CalibrationError
from quantlab.histogram import Histogram
from tests.collect.material import TENSORS, definition, images, maxima, network, parts, work_for
from tests.collect.material import given as dataset
from tests.models import stacked, write

COUNT = 13


@dataclass(frozen=True)
class Case:
    """A model, its samples, and what has to come of them."""

    model: Path
    x: Array
    work: Work
    histograms: dict[str, Histogram]
    bytes: bytes
    data_hash: str


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("collector")
    model, x = network(folder), images(COUNT)
    work = work_for(model, dataset(x))
    expected = definition(model, TENSORS, x)
    data_hash = collect(replace(work, batch=1, shard=1), Local()).how.data_hash
    return Case(model, x, work, expected, written(folder, expected), data_hash)


def written(folder: Path, histograms: dict[str, Histogram]) -> bytes:
    saved.save(folder / "histograms.npz", histograms)
    return (folder / "histograms.npz").read_bytes()


@st.composite
def cuts(draw: st.DrawFn, work: Work) -> Work:
    """Draw how the work is cut: batches, shards, slices, lanes and passes."""
    batch = draw(st.integers(1, COUNT + 1))
    inner = draw(st.sets(st.integers(1, len(TENSORS) - 1), max_size=2))
    edges = [0, *sorted(inner), len(TENSORS)]
    return replace(
        work,
        batch=batch,
        shard=batch * draw(st.integers(1, 4)),
        slice=draw(st.integers(1, COUNT)),
        lanes=draw(st.integers(1, 4)),
        passes=tuple(TENSORS[a:b] for a, b in pairwise(edges)),
    )


@settings(max_examples=25)
@given(st.data())
def test_any_cut_in_any_order_with_any_stops_gives_the_same_bytes(
    case: Case, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("law")
    work = data.draw(cuts(case.work))
    done = data.draw(st.permutations(parts(work)))
    places = st.integers(0, len(done) - 1)
    stops = data.draw(st.sets(places, max_size=4))
    again = data.draw(st.lists(places, max_size=3))
    found = Gathered(work.passes)
    for i, part in enumerate(done):
        if i in stops:
            found.save(folder / "checkpoint.npz", {})
            found, _ = load(folder / "checkpoint.npz")
        found.add(part)
        for known in again:
            found.add(done[min(known, i)])
    first, amax = found.batch_amax()
    assert found.histograms() == case.histograms
    assert written(folder, found.histograms()) == case.bytes
    assert first.tolist() == list(range(0, COUNT, work.batch))
    np.testing.assert_array_equal(amax, maxima(case.model, TENSORS, case.x, work.batch))
    assert (found.samples, found.data_hash()) == (COUNT, case.data_hash)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_rounding_does_not_depend_on_the_slices(tmp_path: Path, size: int) -> None:
    """Weights and samples here are any floats; the kernels add up each sample's in one order."""
    model = stacked(["conv", "gate", "depthwise", "residual"])
    tensors = [n.output[0] for n in model.graph.node if n.op_type != "BatchNormalization"]
    x = np.random.default_rng(0).normal(size=(11, 3, 8, 8)).astype(np.float32)
    work = work_for(write(model, tmp_path / "model.onnx"), dataset(x), tensors, slice=11)
    expected = collect(work, Local()).histograms
    assert collect(replace(work, slice=size), Local()).histograms == expected


@dataclass(frozen=True, slots=True)
class Stopped(Local):
    """An executor that is stopped after some parts."""

    after: int = 0

    def parts(
        self, work: Work, units: Sequence[Unit], advance: Callable[[int], None]
    ) -> Iterator[Part]:
        for number, part in enumerate(Local.parts(self, work, units, advance)):
            if number == self.after:
                raise KeyboardInterrupt
            yield part


@settings(max_examples=15)
@given(st.lists(st.integers(0, 5), max_size=4), st.data())
def test_a_collection_goes_on_from_its_checkpoint_as_often_as_it_is_stopped(
    case: Case,
    tmp_path_factory: pytest.TempPathFactory,
    stops: list[int],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("stops")
    work = replace(data.draw(cuts(case.work)), batch=2, shard=2)
    checkpoint = Checkpoint(folder / "checkpoint.npz", {"of": "this"})
    told: list[int] = []

    def go_on(executor: Local) -> Collection:
        gathered = load(checkpoint.path)[0] if checkpoint.path.exists() else None
        told.append(0)
        return collect(
            work, executor, gathered=gathered, checkpoint=checkpoint, advance=told.append
        )

    finished = None
    for after in stops:
        try:
            finished = go_on(Stopped(after=after))
            break
        except KeyboardInterrupt:
            assert checkpoint.path.exists() or after == 0
    finished = finished or go_on(Local())
    assert written(folder, dict(finished.histograms)) == case.bytes
    assert finished.how.data_hash == case.data_hash
    assert finished.how.samples == COUNT
    assert finished.how.passes == len(work.passes)
    assert told[-1] in (0, COUNT * len(work.passes))


def test_what_was_done_is_not_done_again(case: Case, tmp_path: Path) -> None:
    work = replace(case.work, batch=2, shard=4)
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz", {})
    with pytest.raises(KeyboardInterrupt):
        collect(work, Stopped(after=1), checkpoint=checkpoint)
    before, _ = load(checkpoint.path)
    assert list(before.done) == [Unit(0, 0)]
    source = dataset(case.x)
    found = collect(replace(work, dataset=source), Local(), gathered=before)
    assert source.read == list(range(4, COUNT))
    assert dict(found.histograms) == case.histograms
    assert found.how.seconds >= before.seconds > 0


def test_a_checkpoint_of_everything_needs_no_sample(case: Case) -> None:
    work = replace(case.work, batch=2, shard=4)
    before = Gathered(work.passes)
    for part in parts(work):
        before.add(part)
    source = dataset(case.x)
    found = collect(replace(work, dataset=source), Local(), gathered=before)
    assert (source.read, dict(found.histograms)) == ([], case.histograms)


def test_a_finished_collection_is_not_written_as_a_checkpoint(case: Case, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz", {})
    collect(replace(case.work, batch=COUNT), Local(), checkpoint=checkpoint)
    assert not checkpoint.path.exists()


def test_samples_that_were_counted_are_known_again(case: Case) -> None:
    work = replace(case.work, batch=2, shard=4, passes=(TENSORS[:1], TENSORS[1:]))
    found = Gathered(work.passes)
    for part in parts(work, [Unit(0, 2), Unit(0, 0), Unit(1, 0)]):
        found.add(part)
    check_unchanged(work, found)
    other = np.array(case.x)
    other[5] += 1  # in a shard that is not done
    check_unchanged(replace(work, dataset=dataset(other)), found)
    other[9] += 1
    with pytest.raises(
        CalibrationError, match="samples 8 to 11 are not those that the checkpoint counted"
    ):
        check_unchanged(replace(work, dataset=dataset(other)), found)


def test_samples_in_another_place_are_not_the_same(case: Case) -> None:
    work = replace(case.work, batch=2, shard=4)
    found = Gathered(work.passes)
    found.add(parts(work, [Unit(0, 1)])[0])
    with pytest.raises(CalibrationError, match="samples 4 to 7"):
        check_unchanged(replace(work, dataset=dataset(case.x[::-1])), found)


def test_samples_that_are_all_left_out(case: Case) -> None:
    work = replace(case.work, dataset=dataset(case.x, range(COUNT)))
    with pytest.raises(CalibrationError, match="no calibration sample was read"):
        collect(work, Local())


def test_samples_that_are_left_out_are_told(case: Case) -> None:
    work = replace(case.work, batch=2, shard=4, dataset=dataset(case.x, [4, 5, 6, 7, 9]))
    found = collect(work, Local())
    kept = [0, 1, 2, 3, 8, 10, 11, 12]
    assert found.how.samples == len(kept)
    assert found.how.skipped == tuple(f"[{i}]: missing" for i in (4, 5, 6, 7, 9))
    assert found.first.tolist() == [0, 2, 8, 11, 12]
    assert dict(found.histograms) == definition(case.model, TENSORS, case.x[kept])
