"""A real search: models made, judged by ONNX Runtime, built and timed by OpenVINO."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from quantlab.calibrators.minmax import MinMax
from quantlab.datasets.base import Batch
from quantlab.decide import decide
from quantlab.engines.base import BuildContext, Engine, Recipe
from quantlab.engines.openvino import OpenVino
from quantlab.engines.ort_session import run
from quantlab.engines.tensorrt import TensorRT
from quantlab.errors import ConfigError, DataError
from quantlab.findings import Sensitivity
from quantlab.graph import model as graph
from quantlab.graph.corrections import Corrections
from quantlab.graph.pins import Float, pin
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap
from quantlab.histogram import from_array
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.mse import Mse
from quantlab.metrics.sqnr import Sqnr
from quantlab.metrics.top1 import Top1
from quantlab.performance import Schedule
from quantlab.search.base import Candidate
from quantlab.search.bench import JobBench, Subject, opened
from quantlab.search.chosen import engine, layers
from quantlab.search.models import Models
from quantlab.search.search import search
from quantlab.search.target import Target
from quantlab.search.timing import Track
from quantlab.simulate import Draft, session
from tests.models import Net, write

SAMPLES = 24
SCHEDULE = Schedule((4,), 0.02, 2, 0.0)
COSINE = Target("cosine", 0.999, Cosine(), drop=False)


def hard(path: Path, *, huge: float = 1.0) -> ir.Model:
    """Four layers; "body" reads a channel 300 times the others, which its weights make up for.

    ``huge`` is what "body" makes of its output, and "head" takes away.
    """
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem"))
    x = net.relu(net.conv(x, (16, 16), name="first"))
    x = net.relu(net.conv(x, (16, 16), name="body"))
    x = net.add("Flatten", [net.pool(x)])
    model = graph.load(write(net.finish(net.gemm(x, (256, 8), name="head")), path))
    for name, channels, factor in (
        ("first.weight", np.s_[0], 300),
        ("body.weight", np.s_[:, 0], 1 / 300),
        ("body.weight", np.s_[:], huge),
        ("head.weight", np.s_[:], 1 / huge),
    ):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[channels] *= factor
        value.const_value = ir.tensor(array, name=name)
    return prepare(model).model


def samples(*, labels: bool = False) -> Iterator[Batch]:
    rng = np.random.default_rng(3)
    for first in range(0, SAMPLES, 8):
        arrays = {"x": rng.normal(size=(8, 3, 8, 8)).astype(np.float32)}
        wanted = np.arange(8) if labels else None
        yield Batch(arrays, wanted, np.arange(first, first + 8))


def draft(model: ir.Model, corrections: Corrections | None = None) -> Draft:
    placement = place(model)
    opened_tap = session(tap(model, placement.tensors))
    batch = np.concatenate([b.arrays["x"] for b in samples()])
    outputs = [port.name for port in opened_tap.get_outputs()]
    seen = {"x": batch} | run(opened_tap, outputs, {"x": batch})
    counted = {name: from_array(name, seen[name]) for name in placement.tensors}
    found = decide(counted, MinMax(), method="minmax", ties=placement.ties)
    return Draft(model, "tensorrt", placement, counted, found, corrections or Corrections())


def track(engine: Engine, schedule: Schedule = SCHEDULE) -> Track:
    inputs = {"x": next(samples()).arrays["x"][:4]}
    return Track(engine, BuildContext(), inputs, schedule)


def sensitivities(bench: JobBench) -> list[Sensitivity]:
    """What leaving each layer out of INT8 gains, as a stand-in for an analysis."""
    everything = bench.judge(Candidate("int8")).accuracy
    return [
        Sensitivity(u.node, "layer", u.node, "", None, 40 - 1e4 * (gain - everything), None)
        for u in bench.units
        if (gain := bench.judge(Candidate("int8", ((u.node, "fp32"),))).accuracy)
    ]


def test_a_search_with_openvino_finds_the_planted_layer(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    subject = Subject(model, draft(model), samples)
    with opened(subject, COSINE, track(OpenVino())) as bench:
        assert [unit.node for unit in bench.units] == ["stem", "first", "body"]
        assert not COSINE.meets(bench.judge(Candidate("int8")).accuracy)
        found = search(bench, sensitivities(bench), COSINE)
    mixed = engine(found, "int8")
    assert mixed is not None
    assert mixed.meets
    assert ("body", "fp32") in mixed.floats
    assert {plan.speed for plan in found.plans} == {"measured"}
    assert found.met
    assert found.held_back == SAMPLES
    assert found.batch == 4
    assert layers(found, "int8") == dict(mixed.floats)
    assert layers(found, "fp16") == layers(found, "fp32") == {}
    assert all(plan.low <= plan.latency_ms <= plan.high for plan in found.plans)


def test_what_is_judged_is_the_model_that_a_build_makes(tmp_path: Path) -> None:
    """Pinning by the config's key and placing gives the very model of the plan."""
    from quantlab.graph.insert_qdq import insert_qdq

    model = hard(tmp_path / "m.onnx")
    plan = Models(model, draft(model), "fp32").make(Candidate("int8", (("body", "fp32"),)))
    pinned = pin(model, {"body": "fp32"}, "layers")
    built = insert_qdq(pinned, place(pinned), draft(model).thresholds)
    assert ir.to_proto(plan.model) == ir.to_proto(built)
    assert 0.5 < plan.macs_int8 < 1


def test_openvino_tells_the_time_of_every_layer(tmp_path: Path) -> None:
    net = Net()
    x = net.matmul(net.input(shape=("N", 64, 512)), (512, 512), name="product")
    x = net.add("Add", [x, net.random("bias", (512,))], name="behind")
    write(net.finish(net.matmul(net.relu(x), (512, 512), name="last")), path := tmp_path / "m.onnx")
    model = prepare(graph.load(path)).model

    def batches() -> Iterator[Batch]:
        arrays = {"x": np.random.default_rng(0).normal(size=(4, 64, 512)).astype(np.float32)}
        yield Batch(arrays, None, np.arange(4))

    inputs = next(batches()).arrays
    seen = run(session(tap(model, place(model).tensors)), place(model).tensors[1:], inputs)
    counted = {n: from_array(n, a) for n, a in {**inputs, **seen}.items()}
    found = decide(counted, MinMax(), method="minmax")
    subject = Subject(model, Draft(model, "tensorrt", place(model), {}, found), batches)
    timing = Track(OpenVino(), BuildContext(), inputs, SCHEDULE)
    with opened(subject, COSINE, timing) as bench:
        for precision in bench.uniform:
            assert bench.time(Candidate(precision)).layers.keys() == {"product", "last"}


def test_a_drop_needs_labels_and_says_what_a_sample_is(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    target = Target("top1_drop", 0.5, Top1(), drop=True)
    with (
        pytest.raises(ConfigError, match=r"'top1_drop' compares with labels.*or choose a target"),
        opened(Subject(model, draft(model), samples), target, track(OpenVino())),
    ):
        pass
    subject = Subject(model, draft(model), lambda: samples(labels=True))
    with opened(subject, target, track(OpenVino())) as bench:
        assert bench.step == pytest.approx(100 / SAMPLES)
        assert bench.judge(Candidate("fp32")).accuracy == 0


def test_an_error_of_0_is_not_taken_for_a_wrong_sample(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    with opened(
        Subject(model, draft(model), samples),
        Target("mse", 0.1, Mse(), drop=False),
        track(OpenVino()),
    ) as bench:
        assert bench.step is None


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    subject = Subject(model, draft(model), lambda: iter(()))
    with (
        pytest.raises(DataError, match="no sample is held back to judge plans on"),
        opened(subject, COSINE, track(OpenVino())),
    ):
        pass


def test_an_unknown_output_is_an_error(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    subject = Subject(model, draft(model), samples, output="hed_out")
    with (
        pytest.raises(ConfigError, match=r"no output 'hed_out'.*'head_out'"),
        opened(subject, COSINE, track(OpenVino())),
    ):
        pass


MANY = replace(SCHEDULE, batches=(100_000,))
"""A batch that is only modelled: with a small one, a small network's layers take no time."""


class Elsewhere(OpenVino):
    """Builds, but cannot run here, with FP16 around INT8, as TensorRT without a GPU."""

    recipe = Recipe(around="fp16")

    def runnable(self) -> None:
        from quantlab.errors import EngineUnavailable

        raise EngineUnavailable("no GPU")


def test_speeds_are_modelled_where_nothing_runs(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    with opened(Subject(model, draft(model), samples), COSINE, track(Elsewhere(), MANY)) as bench:
        found = search(bench, sensitivities(bench), COSINE)
    assert found.builds == 0
    assert {plan.speed for plan in found.plans} == {"modelled"}
    times = {plan.label: plan.latency_ms for plan in found.plans}
    assert times["int8"] < times["fp16"] < times["fp32"]
    assert found.met
    assert ("body", "fp16") in next(p for p in found.plans if p.label == found.chosen).floats
    assert "modelled from the MACs" in found.reason


def test_what_fp16_cannot_hold_stays_in_fp32(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx", huge=1e6)
    with opened(Subject(model, draft(model), samples), COSINE, track(Elsewhere(), MANY)) as bench:
        assert not bench.judge(Candidate("fp16")).finite
        wide = bench.beyond_fp16()
        assert "body" in wide
        assert "stem" not in wide
        found = search(bench, sensitivities(bench), COSINE)
    fp16 = engine(found, "fp16")
    assert fp16 is not None
    assert fp16.meets
    assert layers(found, "fp16") == dict.fromkeys(wide, "fp32")
    chosen = next(plan for plan in found.plans if plan.label == found.chosen)
    assert ("body", "fp32") in chosen.floats


def test_a_backend_that_chooses_the_layers_is_refused(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    implicit = TensorRT(quantization="implicit")
    with (
        pytest.raises(ConfigError, match="implicit INT8 chooses them by itself"),
        opened(Subject(model, draft(model), samples), COSINE, track(implicit)),
    ):
        pass


def test_a_layer_in_floating_point_gets_no_correction(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    corrections = Corrections(biases={"body": np.full(16, 0.5, np.float32)})
    everything = tuple((u.node, "fp32") for u in Models(model, draft(model), "fp32").units())
    some: tuple[tuple[str, Float], ...] = tuple((n, "fp32") for n, _ in everything if n != "stem")
    for floats, same in ((some, True), (some[:1], False)):
        made = [
            Models(model, draft(model, c), "fp32").make(Candidate("int8", floats)).model
            for c in (None, corrections)
        ]
        assert (ir.to_proto(made[0]) == ir.to_proto(made[1])) == same


def test_what_was_never_collected_stays_in_floating_point(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    whole = draft(model)
    lost = next(a.tensor for a in whole.placement.activations if a.edges[0].node == "body")
    known = {name: t for name, t in whole.thresholds.items() if name != lost}
    made = Models(model, replace(whole, thresholds=known), "fp32").make(Candidate("int8"))
    assert made.floats == (("body", "fp32"),)


def test_sqnr_is_judged_against_fp32(tmp_path: Path) -> None:
    model = hard(tmp_path / "m.onnx")
    target = Target("sqnr", 30.0, Sqnr(), drop=False)
    with opened(Subject(model, draft(model), samples), target, track(OpenVino())) as bench:
        worse, better = (
            bench.judge(Candidate("int8", floats)).accuracy for floats in ((), (("body", "fp32"),))
        )
        assert worse < better < bench.judge(Candidate("fp32")).accuracy == 150
