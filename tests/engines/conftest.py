"""The usable engines as fixtures, and a builder of engines in a run folder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import onnx
import pytest

from quantlab.engines import ENGINES
from quantlab.engines.base import Engine, Runner
from quantlab.errors import EngineUnavailable
from quantlab.records import Build, Precision
from tests.engines.models_for_engines import saved

Builder = Callable[[onnx.ModelProto, Precision], Build]


def _usable(name: str) -> bool:
    try:
        ENGINES[name]().available()
        ENGINES[name]().runnable()
    except EngineUnavailable:  # what it says then is tested in test_parts.py
        return False
    return True


@pytest.fixture(params=[name for name in ENGINES if _usable(name)])
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run folder."""
    (tmp_path / "engines").mkdir()
    return tmp_path


@pytest.fixture
def opened(root: Path) -> Iterator[Callable[..., Runner]]:
    """Build with an engine and open; everything is closed at the end."""
    open_now: list[AbstractContextManager[Runner]] = []

    def build_and_open(made: Engine, model: onnx.ModelProto, precision: Precision) -> Runner:
        build = made.build(saved(model, root), precision, root / "engines")
        context = made.open(build, root)
        open_now.append(context)
        return context.__enter__()

    yield build_and_open
    for context in open_now:
        context.__exit__(None, None, None)
