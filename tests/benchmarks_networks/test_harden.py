"""Hard forms compute the very bits of their network; one scale for a tensor fits them ill."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from benchmarks.networks.harden import Settings, harden
from benchmarks.networks.sites import find
from tests.models import Net

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [ROOT / "examples" / "fashion_mnist" / f"{name}.onnx" for name in ("resnet", "mobilenet")]


def outputs(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    image = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: image})[0]
    return found


def spread(model: onnx.ModelProto) -> float:
    """Return the largest ratio between a convolution's output channels' weights."""
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kernels = [weights[n.input[1]] for n in model.graph.node if n.op_type == "Conv"]
    channels = [np.abs(kernel).max(axis=(1, 2, 3)) for kernel in kernels]
    return float(max(amax.max() / amax[amax > 0].min() for amax in channels))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_outputs_stay_the_same_bits_and_channels_become_unequal(path: Path) -> None:
    model = onnx.load(path)
    before = model.SerializeToString(deterministic=True)
    made, planted = harden(model, Settings())
    assert model.SerializeToString(deterministic=True) == before
    assert planted
    np.testing.assert_array_equal(outputs(made), outputs(model))
    assert spread(made) > 4 * spread(model)


def test_a_seed_decides_and_places_limits_what_is_planted() -> None:
    model = onnx.load(SHIPPED[0])
    first, planted = harden(model, Settings(seed=3, places=1))
    again, _ = harden(model, Settings(seed=3, places=1))
    other, _ = harden(model, Settings(seed=4, places=1))
    assert len(planted) == 1
    readers = {node.name for node in model.graph.node}
    assert set(planted[0].readers) <= readers
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(
        deterministic=True
    )
    assert first.SerializeToString(deterministic=True) != other.SerializeToString(
        deterministic=True
    )


def test_what_lets_no_factor_through_is_no_place(tmp_path: Path) -> None:
    net = Net()
    x = net.add("Sigmoid", [net.conv(net.input(), (16, 16), name="before")])
    model = net.finish(net.conv(x, (16, 16), name="after"))
    assert find(model) == []
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model, source)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.networks.harden", source, target],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "nothing written" in done.stdout
    assert not target.exists()
