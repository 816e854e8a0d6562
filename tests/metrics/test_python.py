"""The python metric loads a function by module or file and checks what it returns."""

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from quantlab.errors import ConfigError, DataError
from quantlab.metrics import METRICS
from quantlab.metrics.python import Python
from quantlab.registry import make

ONES, TWOS = np.ones((3, 2)), np.full((3, 2), 2.0)


def test_rows_are_averaged_over_columns_and_samples() -> None:
    metric = Python("tests.metrics.scoring:two_columns")
    scores = metric.scores(ONES, TWOS)
    assert scores.tolist() == [[1.5], [1.5], [1.5]]
    assert metric.value(scores) == 1.5


def test_a_file_is_found_beside_the_config_and_loaded_once(tmp_path: Path) -> None:
    code = """
        calls = []
        def seen(outputs, target):
            calls.append(1)
            return [len(calls)] * len(target)
    """
    (tmp_path / "mine.py").write_text(dedent(code))
    metric = make("metric", METRICS, "python", {"function": "mine.py:seen"}, base=tmp_path)
    assert metric.name == "seen"
    assert [metric.scores(ONES, TWOS)[0, 0] for _ in range(3)] == [1.0, 2.0, 3.0]


def test_an_error_of_the_function_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def broken(outputs, target):\n    return outputs / missing\n"
    )
    with pytest.raises(NameError, match="missing"):
        Python("mine.py:broken", folder=tmp_path).scores(ONES, TWOS)


def test_a_file_that_fails_to_load_fails_with_its_own_error_each_time(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('no licence')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no licence"):
            Python("mine.py:iou", folder=tmp_path).scores(ONES, TWOS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("scoring", "function is 'scoring'; expected 'module:function' or 'file.py:function'"),
        (":iou", "expected 'module:function'"),
        ("scoring:not a name", "expected 'module:function'"),
    ],
)
def test_what_names_no_function_is_refused_at_once(function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Python(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module_here:iou", "cannot import 'no_such_module_here'.*where Python finds it"),
        ("missing.py:iou", "cannot import 'missing.py': there is no file .*missing.py"),
        ("tests.metrics.scoring:absent", "has no function 'absent'"),
        ("tests.metrics.scoring:NUMBER", "has no function 'NUMBER'"),
    ],
)
def test_what_cannot_be_loaded_is_named(function: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Python(function, folder=tmp_path).scores(ONES, TWOS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("batch_mean", r"returned an array of shape \(\) for 3 samples; expected \(3,\)"),
        ("words", "did not return numbers"),
        ("undefined", "NaN or an infinity for sample 1 of the batch"),
    ],
)
def test_a_wrong_answer_is_named(function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Python(f"tests.metrics.scoring:{function}").scores(ONES, TWOS)
