"""Whoever does the work does each unit once, and gives the bytes of this process."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantlab.collect import saved
from quantlab.collect.collector import collect
from quantlab.collect.cut import Request, cut
from quantlab.collect.executor import Executor, Local
from quantlab.collect.executors import EXECUTORS
from quantlab.collect.gather import Gathered
from quantlab.collect.work import Work
from quantlab.datasets.npz import Npz
from quantlab.errors import ConfigError, EngineUnavailable
from quantlab.graph import model as graph
from tests.collect.material import TENSORS, images, network

NEEDED: Mapping[str, Mapping[str, Any]] = {"ray": {"workers": 1}}
"""Parameters without a default."""

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    made = EXECUTORS[request.param](**NEEDED.get(request.param, {}))
    try:
        made.available()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    return made


def work_of(folder: Path, executor: Executor) -> Work:
    np.savez(folder / "calib.npz", x=images(10))
    model = network(folder)
    inputs = graph.inputs(graph.reload(model))
    request = Request(model, inputs, TENSORS, Npz(folder / "calib.npz"), batch=2, checkpoint=2)
    return cut(request, executor)


def test_each_unit_comes_back_once_and_their_sum_is_that_of_one_process(
    executor: Executor, tmp_path: Path
) -> None:
    work = replace(work_of(tmp_path, executor), passes=(TENSORS[:2], TENSORS[2:]))
    told: list[int] = []
    found = list(executor.parts(work, work.units, told.append))
    assert sorted(part.unit for part in found) == list(work.units)
    assert sum(told) == 10 * len(work.passes)
    gathered = Gathered(work.passes)
    for part in found:
        gathered.add(part)
    expected = collect(replace(work, lanes=1), Local(threads=1))
    files = []
    for name, histograms in (("a", gathered.histograms()), ("b", expected.histograms)):
        saved.save(tmp_path / name, histograms)
        files.append((tmp_path / name).read_bytes())
    if executor.device == "cpu":  # another device rounds otherwise
        assert files[0] == files[1]
        np.testing.assert_array_equal(gathered.batch_amax()[1], expected.batch_amax)
    assert gathered.data_hash() == expected.how.data_hash


def test_no_unit_gives_no_part(executor: Executor, tmp_path: Path) -> None:
    assert list(executor.parts(work_of(tmp_path, executor), [], lambda _: None)) == []


def test_an_executor_says_what_it_is(executor: Executor) -> None:
    assert EXECUTORS[executor.name] is type(executor)
    assert executor.device in ("cpu", "cuda")
    assert executor.cores() >= 1


@pytest.mark.parametrize("threads", [0, -1])
def test_this_process_needs_a_thread(threads: int) -> None:
    with pytest.raises(ConfigError, match="threads: expected 1 or more") as raised:
        Local(threads=threads)
    assert raised.value.key == "threads"
