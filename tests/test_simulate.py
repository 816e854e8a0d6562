"""The INT8 model in floating point: what ONNX Runtime makes of the Q/DQ model, for any scale."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantlab.engines.ort_session import CPU, loaded, options
from quantlab.errors import DataError
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.placement import Placement, place
from quantlab.graph.prepare import prepare
from quantlab.records import TensorThreshold, Thresholds
from quantlab.simulate import LOWEST, Draft, Judge, Simulation, decibels, power_of
from tests.models import Net, residual
from tests.networks import efficientnet, vit

Arrays = Mapping[str, NDArray[np.generic]]


def prepared(proto: onnx.ModelProto) -> ir.Model:
    return prepare(ir.from_proto(proto)).model


def spread(placement: Placement, width: float) -> dict[str, TensorThreshold]:
    return {
        name: TensorThreshold(name, 2 * width, width + 0.01 * i, "test", -width)
        for i, name in enumerate(placement.tensors)
    }


def images(model: ir.Model, *, count: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        shape = [d if isinstance(d, int) else count for d in value.shape]
        found[str(value.name)] = rng.normal(size=shape).astype(np.float32)
    return found


def written(model: ir.Model, given: Arrays, folder: Path) -> list[NDArray[np.float32]]:
    """Return what ONNX Runtime makes of a Q/DQ model as written, without integer kernels."""
    path = folder / "written.onnx"
    ir.save(model, path)
    chosen = options()
    chosen.add_session_config_entry("session.disable_quant_qdq", "1")
    found: list[NDArray[np.float32]] = loaded(path, chosen, CPU).run(None, dict(given))
    return found


@pytest.mark.parametrize("policy", ["tensorrt", "openvino", "onnxruntime", "conservative"])
@pytest.mark.parametrize("make", [residual, vit, efficientnet], ids=lambda f: f.__name__)
def test_equals_the_written_model_for_scales_given_later(
    make: type[object], policy: str, tmp_path: Path
) -> None:
    model = prepared(make())  # type: ignore[arg-type]
    placement = place(model, policy)
    compiled = Draft(model, policy, placement, {}, spread(placement, 1.0)).simulated()
    given = images(model, count=3)
    later = spread(placement, 3.0)
    expected = written(insert_qdq(model, placement, later, policy=policy), given, tmp_path)
    got = compiled.run(given, later)
    for name, values in zip(compiled.outputs, expected, strict=True):
        assert np.allclose(got[name].astype(np.float32), values, rtol=1e-4, atol=1e-4)


def judged(
    model: ir.Model, batches: list[Arrays], outputs: tuple[str, ...] = ()
) -> tuple[Judge, Simulation, Thresholds]:
    placement = place(model)
    thresholds = spread(placement, 3.0)
    judge = Judge.make(model, lambda: iter(batches), outputs)
    return judge, Draft(model, "tensorrt", placement, {}, thresholds).simulated(), thresholds


def test_error_is_the_definition_whatever_the_batches() -> None:
    model = prepared(residual())
    whole = images(model, count=6)
    halves: list[Arrays] = [
        {k: v[:2] for k, v in whole.items()},
        {k: v[2:] for k, v in whole.items()},
    ]
    judge, candidate, thresholds = judged(model, halves)
    wanted = judge.compiled.run(None, whole)[0].astype(np.float64)
    came = candidate.run(whole, thresholds)[judge.outputs[0]].astype(np.float64)
    error = np.square(came - wanted).sum() / np.square(wanted).sum()
    wide = {name: replace(one, threshold=1e6) for name, one in thresholds.items()}
    errors = judge.errors([(candidate, thresholds), (candidate, wide)])
    assert errors[0] == pytest.approx(error, rel=1e-4)
    assert errors[1] > 5 * errors[0]


def test_several_outputs_count_alike_and_can_be_chosen() -> None:
    net = Net()
    x = net.conv(net.input(shape=("N", 16, 8, 8)), (16, 16))
    large = net.add(
        "Mul", [net.add("Relu", [x]), net.weight("thousand", np.array(1000.0, np.float32))]
    )
    model = prepared(net.finish(net.relu(x), large))
    given = images(model, count=4)
    both, candidate, thresholds = judged(model, [given])
    single = [Judge.make(model, lambda: iter([given]), (n,)) for n in both.outputs]
    errors = [one.errors([(candidate, thresholds)])[0] for one in single]
    assert both.errors([(candidate, thresholds)])[0] == pytest.approx(np.mean(errors))


def test_an_output_whose_shape_depends_on_values_is_named() -> None:
    net = Net()
    x = net.conv(net.input(shape=("N", 16, 8, 8)), (16, 16))
    large = net.add("Mul", [x, net.weight("ten", np.array(10.0, np.float32))])
    found = net.add("NonZero", [net.add("Round", [large])])
    places = net.add("Cast", [found], name="places", attributes={"to": onnx.TensorProto.FLOAT})
    model = prepared(net.finish(x, places))
    judge, candidate, thresholds = judged(model, [images(model, count=4)])
    with pytest.raises(DataError, match=r"'places_out' has shape .* in INT8 and .*evaluation"):
        judge.errors([(candidate, thresholds)])
    judge, candidate, thresholds = judged(model, [images(model, count=4)], judge.outputs[:1])
    assert judge.errors([(candidate, thresholds)])[0] > 0


@pytest.mark.parametrize(
    ("values", "other", "power"),
    [
        ([1.0, 2.0], None, 5.0),
        ([-np.inf, 2.0], None, 4.0),
        ([1.0, 2.0], [1.0, 0.0], 4.0),
        ([-np.inf, 2.0], [-np.inf, 2.0], 0.0),
        ([np.inf], [-np.inf], np.inf),
        ([1.0], [np.inf], np.inf),
    ],
)
def test_power_of_differences(values: list[float], other: list[float] | None, power: float) -> None:
    given = None if other is None else np.array(other, np.float32)
    assert power_of(np.array(values, np.float32), given) == power


def test_decibels_of_an_error() -> None:
    assert decibels(0.0) is None
    assert decibels(0.01) == pytest.approx(20)
    assert decibels(np.inf) == LOWEST


@pytest.mark.parametrize("value", [None, 0.0, np.nan])
def test_nothing_to_judge_on_is_an_error(value: float | None) -> None:
    net = Net()
    model = prepared(net.finish(net.relu(net.conv(net.input(), (16, 16)))))
    given: list[Arrays] = (
        [{"x": np.full((2, 16, 8, 8), value, np.float32)}] if value is not None else []
    )
    judge, candidate, thresholds = judged(model, given)
    with pytest.raises(DataError, match="held_back"):
        judge.errors([(candidate, thresholds)])


def test_batches_begin_anew_each_time() -> None:
    model = prepared(residual())
    given = images(model, count=2)
    begun = 0

    def batches() -> Iterator[Arrays]:
        nonlocal begun
        begun += 1
        yield given

    _, candidate, thresholds = judged(model, [given])
    judge = Judge.make(model, batches)
    assert judge.errors([(candidate, thresholds)]) == judge.errors([(candidate, thresholds)])
    assert begun == 2
