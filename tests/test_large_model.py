"""A model beyond the 2 GB of one file, with external data, is calibrated within a small budget."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, run

import numpy as np
import psutil
import pytest
import yaml
from onnx import TensorProto

from quantlab.graph.tap import tapped
from tests.models import Net
from tests.runs import COMMAND, left_behind

pytestmark = pytest.mark.xdist_group("large")

GIB = 1 << 30
WIDTH = 64
ROWS = 2 * GIB // (4 * WIDTH) + 4096
NEEDED = 6 * GIB
"""Free memory and disk: checksums hold a weight twice, and the prepared model is a copy."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A convolutional network and a table of 2 GiB of zeros, of which four rows are read."""
    folder = tmp_path_factory.mktemp("large")
    if min(psutil.virtual_memory().available, shutil.disk_usage(folder).free) < NEEDED:
        pytest.skip("needs 6 GiB of free memory and disk")
    net = Net()
    token = net.input("token", ("N", 1), TensorProto.INT64)
    x = net.relu(net.conv(net.input(shape=("N", 1, 256, 256)), (1, 16), name="stem"))
    for _ in range(8):
        x = net.relu(net.conv(x, (16, 16)))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    table = net.weight("table", np.zeros((1, WIDTH), np.float32))
    row = net.add("Flatten", [net.add("Gather", [table, token], name="embedding")])
    x = net.add("Add", [net.gemm(x, (16, WIDTH), name="head"), row], name="sum")
    model = net.finish(net.gemm(x, (WIDTH, 16), name="classifier"))
    [weight] = [w for w in model.graph.initializer if w.name == "table"]
    weight.ClearField("raw_data")
    weight.dims[0] = ROWS
    weight.data_location = TensorProto.EXTERNAL
    size = 4 * WIDTH * ROWS
    for key, value in (("location", "model.data"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with (folder / "model.data").open("wb") as data:
        data.truncate(size)  # zeros that take no space
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 1, 256, 256)).astype(np.float32)
    np.savez(folder / "calib.npz", x=images, token=rng.integers(0, ROWS, (4, 1)))
    yield folder
    shutil.rmtree(folder)


def calibrate(folder: Path, budget: str | None) -> CompletedProcess[str]:
    calibration: dict[str, object] = {
        "dataset": {"kind": "npz", "path": "calib.npz"},
        "tensors": "all",
    }
    if budget is not None:
        calibration["max_memory"] = budget
    tree = {
        "model": "model.onnx",
        "calibration": calibration,
        "engines": {"backend": "onnxruntime"},
        "output": "run",
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(tree))
    return run(
        [COMMAND, "calibrate", folder / "job.yaml"], capture_output=True, text=True, check=False
    )


def results(folder: Path) -> list[bytes]:
    names = ("histograms.npz", "batch_amax.npz", "calibration.cache")
    return [(folder / "run" / name).read_bytes() for name in names]


def test_a_model_beyond_2_gb_is_calibrated_with_and_without_a_budget(folder: Path) -> None:
    calibrate(folder, "1MiB")  # prepares the model, which leaves the process larger
    refused = calibrate(folder, "1MiB")
    assert refused.returncode == 2
    said = re.search(r"the least that works is (\d+) MiB", refused.stderr)
    assert said, refused.stderr
    budget = int(said[1]) + 4
    assert budget << 20 < GIB, "the table is not held in memory"

    within = calibrate(folder, f"{budget}MiB")
    assert within.returncode == 0, within.stderr
    how = json.loads((folder / "run/collection.json").read_text())
    assert how["passes"] > 1, within.stderr
    assert how["peak_rss_bytes"] <= budget << 20
    assert f"memory: {how['passes']} passes" in within.stderr
    expected = results(folder)

    (folder / "run/histograms.npz").unlink()
    free = calibrate(folder, None)
    assert free.returncode == 0, free.stderr
    assert json.loads((folder / "run/collection.json").read_text())["passes"] == 1
    assert results(folder) == expected
    assert not left_behind(folder)

    prepared = folder / "run/prepared.onnx"
    assert prepared.with_suffix(".onnx.data").stat().st_size > 2 * GIB
    with tapped(prepared, ["sum_out", "stem_out"]) as file:
        assert file.stat().st_size < 100_000, "weights are not copied"
