"""The cost of converting is measured against the model as it was."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quantlab.datasets.npz import Npz
from quantlab.errors import DataError
from quantlab.graph.convert_qdq import as_tensorrt_reads, convert
from quantlab.graph.foreign_qdq import check
from quantlab.graph.model import save
from quantlab.graph.qdq_points import settle
from quantlab.qdq_cost import SAMPLES, measure, samples_of
from tests.graph.foreign import CHANNELS, Spoilt
from tests.graph.running import run

SHAPE = (2, CHANNELS, 8, 8)


def settled(spoilt: Spoilt) -> ir.Model:
    return settle(ir.from_proto(spoilt.model()))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Eight samples between 0 and 5, as far as UINT8 steps of 0.02 reach."""
    path = tmp_path / "samples.npz"
    values = np.random.default_rng(2).uniform(0, 5, (8, *SHAPE[1:]))
    np.savez(path, x=values.astype(np.float32))
    return path


def decibels(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the ratio as docs define it: 10 log10 of signal over noise."""
    noise = np.square(got.astype(float) - expected.astype(float)).sum()
    return float(10 * np.log10(np.square(expected.astype(float)).sum() / noise))


def test_costs_are_what_running_both_models_gives(samples: Path, tmp_path: Path) -> None:
    model = settled(Spoilt(zero=np.uint8(0), bias="int32"))
    findings = check(model)
    cost = measure(model, findings, samples_of(Npz(samples), model))
    made = {
        "own": model,
        "all": convert(model, findings),
        "x": convert(model, [f for f in findings if f.tensor == "x"]),
        "read": as_tensorrt_reads(model),
    }
    given = np.load(samples)["x"]
    outputs = {}
    for name, each in made.items():
        save(each, tmp_path / f"{name}.onnx")
        parts = [run(tmp_path / f"{name}.onnx", {"x": part})["y"] for part in np.split(given, 4)]
        outputs[name] = np.concatenate(parts)
    assert cost.samples == 8
    assert cost.together is not None
    assert cost.together.output == "y"
    assert cost.together.sqnr_db == pytest.approx(
        decibels(outputs["own"], outputs["all"]), abs=1e-3
    )
    assert cost.together.cosine > 0.9999
    assert cost.unconverted is not None
    misread = decibels(outputs["own"], outputs["read"])
    assert cost.unconverted.sqnr_db == pytest.approx(misread, abs=1e-3)
    assert misread < 20  # half of the range saturates
    assert cost.together.sqnr_db > 40
    tensors = {row.tensor: row for row in cost.tensors}
    assert list(tensors) == ["x", "b"]
    assert tensors["b"].alone is not None
    assert tensors["b"].alone.sqnr_db == 150  # a float bias of the same values
    assert tensors["x"].alone is not None
    assert tensors["x"].alone.sqnr_db == pytest.approx(
        decibels(outputs["own"], outputs["x"]), abs=1e-3
    )
    assert (tensors["x"].rules, tensors["x"].relu) == (("unsigned",), True)


def test_without_samples_the_weights_and_the_steps_are_known() -> None:
    model = settled(Spoilt(zero=np.uint8(0), weights=np.uint8, weight_zero=0))
    cost = measure(model, check(model))
    assert (cost.samples, cost.together, cost.unconverted) == (0, None, None)
    tensors = {row.tensor: row for row in cost.tensors}
    assert tensors["x"].weights_sqnr_db is None
    assert tensors["x"].growth == pytest.approx(255 / 127, rel=1e-6)
    # The same weights rounded to steps 255 / 127 as wide for all channels.
    weights = settled(Spoilt(weights=np.uint8)).graph.initializers["w"].const_value
    assert weights is not None
    steps = weights.numpy().astype(float)
    coarse = np.rint(steps / (255 / 127)) * (255 / 127)
    assert tensors["w"].weights_sqnr_db == pytest.approx(decibels(steps, coarse), abs=1.0)
    assert tensors["w"].alone is None


def test_nothing_is_unconverted_where_nothing_is_misread(samples: Path) -> None:
    model = settled(Spoilt(zero=np.uint8(128)))
    cost = measure(model, check(model), samples_of(Npz(samples), model))
    assert cost.unconverted is None
    assert cost.together is not None
    assert cost.together.sqnr_db == 150


def test_no_more_samples_are_run_than_said(tmp_path: Path) -> None:
    model = settled(Spoilt())
    path = tmp_path / "many.npz"
    np.savez(path, x=np.zeros((SAMPLES + 20, *SHAPE[1:]), np.float32))
    batches = samples_of(Npz(path), model)
    assert sum(len(batch["x"]) for batch in batches) == SAMPLES
    assert {len(batch["x"]) for batch in batches} == {2}  # the model's batch axis is fixed


def test_an_output_of_integers_alone_cannot_be_compared(samples: Path) -> None:
    proto = Spoilt(zero=np.uint8(0)).model()
    del proto.graph.output[:]
    node = onnx.helper.make_node("ArgMax", ["y"], ["best"], "best", axis=1)
    proto.graph.node.append(node)
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("best", onnx.TensorProto.INT64, [2, 1, 8, 8])
    )
    model = settle(ir.from_proto(proto))
    with pytest.raises(DataError, match="no output in floating point"):
        measure(model, check(model), samples_of(Npz(samples), model))
