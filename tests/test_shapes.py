"""The shapes that engines are built for span the config's batches and the calibration samples."""

from pathlib import Path

import pytest

from quantlab.engines.base import ShapeRange
from quantlab.progress import Silent
from quantlab.records import TensorSpec
from quantlab.steps.job import started
from quantlab.steps.shapes import shapes
from tests.runs import configured, workspace

RAGGED = """import numpy as np

def heights():
    for height in (8, 12, 12, 10):
        yield np.zeros((1, 3, height, 8), np.float32)
"""


def ranges(config: Path, *inputs: TensorSpec) -> dict[str, ShapeRange]:
    with started(config, output=None, progress=Silent()) as job:
        return shapes(job, inputs)


@pytest.mark.parametrize(
    ("changes", "largest"),
    [
        ({"benchmark.batches": [1, 64]}, 64),
        ({"benchmark": None, "evaluation.batch": 48}, 48),
        ({"benchmark": None, "evaluation": None, "calibration.batch": 20}, 20),
    ],
)
def test_the_batch_axis_goes_to_the_largest_batch(
    tmp_path: Path, changes: dict[str, object], largest: int
) -> None:
    config = workspace(tmp_path, changes)
    found = ranges(config, TensorSpec("x", "float32", ("N", 3, 8, 8)))
    rest = (3, 8, 8)
    assert found == {"x": ShapeRange((1, *rest), (largest, *rest), (largest, *rest))}


def test_fixed_shapes_need_no_range(tmp_path: Path) -> None:
    assert ranges(workspace(tmp_path), TensorSpec("x", "float32", (4, 3, 8, 8))) == {}


def test_other_open_axes_span_what_the_samples_show(tmp_path: Path) -> None:
    workspace(tmp_path)
    (tmp_path / "ragged.py").write_text(RAGGED)
    dataset = {"kind": "python", "function": "ragged.py:heights"}
    config = configured(tmp_path, {"calibration.dataset": dataset})
    found = ranges(config, TensorSpec("x", "float32", ("N", 3, "H", 8)))["x"]
    assert found == ShapeRange((1, 3, 8, 8), (8, 3, 12, 8), (8, 3, 12, 8))
