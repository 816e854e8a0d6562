"""Analysis against the plain way: Q/DQ for one part only, the whole network run for each."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.networks.harden import Settings, harden
from quantlab.analyze import analyze, chain
from quantlab.analyze.rows import rows
from quantlab.errors import ConfigError, DataError, ModelError
from quantlab.findings import Analysis
from quantlab.graph.corrections import Corrections
from quantlab.graph.model import load
from quantlab.graph.prepare import prepare
from quantlab.metrics import METRICS, Metric
from quantlab.simulate import Judge, decibels
from tests.analyze.case import NETWORKS, SAMPLES, Case, case, residual, shared, transformer, without
from tests.models import Net

SAME = 0.02
"""dB: how far sums in another order, of other kernels, move an error of INT8."""


def judged(of: Case) -> float | None:
    """Return the SQNR of the whole INT8 model, as candidates are judged."""
    batches = [batch.arrays for batch in of.batches()]
    judge = Judge.make(of.draft.model, lambda: iter(batches))
    return decibels(*judge.errors([(of.draft.simulated(), of.draft.thresholds)]))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[Case, Analysis]:
    found = case(NETWORKS[request.param]())
    return found, analyze(found.draft, found.batches())


def test_every_row_is_what_quantizing_it_alone_and_all_but_it_gives(
    network: tuple[Case, Analysis],
) -> None:
    of, analysis = network
    parts = {(row.kind, row.name): row for row in rows(of.draft.model, of.draft.placement)}
    assert len(parts) == len(analysis.rows)
    for row in analysis.rows:
        edges = parts[row.kind, row.name].edges
        assert row.alone_db == pytest.approx(of.sqnr(edges), abs=SAME), row.name
        others = of.sqnr(without(edges, of.draft.placement))
        assert row.without_db == pytest.approx(others, abs=SAME), row.name


def test_all_is_what_the_judge_of_candidates_says(network: tuple[Case, Analysis]) -> None:
    of, analysis = network
    assert analysis.all_db == pytest.approx(judged(of), abs=SAME)
    assert analysis.samples == SAMPLES


def test_layers_divide_what_is_quantized_and_so_do_tensors_and_weights(
    network: tuple[Case, Analysis],
) -> None:
    of, _ = network
    parts = rows(of.draft.model, of.draft.placement)
    every = without(frozenset(), of.draft.placement)
    for kinds in (("layer",), ("activation", "weight")):
        chosen = [row.edges for row in parts if row.kind in kinds]
        assert frozenset().union(*chosen) == every
        assert sum(map(len, chosen)) == len(every)


def test_rows_are_ranked_within_their_kind(network: tuple[Case, Analysis]) -> None:
    _, analysis = network
    kinds = [row.kind for row in analysis.rows]
    assert list(dict.fromkeys(kinds)) == ["layer", "activation", "weight"]
    for one, other in pairwise(analysis.rows):
        if one.kind == other.kind and one.alone_db is not None and other.alone_db is not None:
            assert one.alone_db <= other.alone_db


def test_own_errors_are_those_of_the_thing_itself() -> None:
    of = case(residual())
    analysis = analyze(of.draft, of.batches())
    found = {(row.kind, row.name): row for row in analysis.rows}
    last = found["layer", "head"]  # its output is the network's
    assert last.own_db == pytest.approx(last.alone_db, abs=SAME)
    image = of.inputs["x"].astype(np.float64)
    step = np.abs(image).max() / 127
    error = np.square(np.rint(image / step) * step - image).sum() / np.square(image).sum()
    assert found["activation", "x"].own_db == pytest.approx(-10 * np.log10(error), abs=SAME)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_nothing_depends_on_cuts_or_batches(
    make: Callable[[], onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = case(make())
    found = []
    for segments, size in ((1, SAMPLES), (50, 2)):
        monkeypatch.setattr(chain, "SEGMENTS", segments)
        found.append({(r.kind, r.name): r for r in analyze(of.draft, of.batches(size)).rows})
    for other in found[1:]:
        for key, row in found[0].items():
            for field in ("own_db", "alone_db", "without_db"):
                assert getattr(other[key], field) == pytest.approx(getattr(row, field), abs=SAME)


@pytest.mark.parametrize("policy", ["onnxruntime", "openvino"])
def test_every_policy_is_judged_as_it_is_simulated(policy: str) -> None:
    of = case(residual(), policy=policy)
    analysis = analyze(of.draft, of.batches())
    assert analysis.all_db == pytest.approx(judged(of), abs=SAME)


@pytest.mark.parametrize(
    ("make", "layer", "channels"),
    [(residual, "first", 16), (transformer, "up", 32), (transformer, "down", 16)],
)
def test_corrected_biases_are_switched_with_the_weights(
    make: Callable[[], onnx.ModelProto], layer: str, channels: int
) -> None:
    bias = np.linspace(-0.5, 0.5, channels, dtype=np.float32)
    of = case(make(), corrections=Corrections(biases={layer: bias}))
    plain = case(make())
    analysis = analyze(of.draft, of.batches())
    others = analyze(plain.draft, plain.batches())
    assert analysis.all_db == pytest.approx(judged(of), abs=SAME)
    weights = {w.initializer for w in of.draft.placement.weights if w.edge.node == layer}
    before = {(row.kind, row.name): row.alone_db for row in others.rows}
    for row in analysis.rows:
        about = row.name in {layer, *weights}
        same = row.alone_db == pytest.approx(before[row.kind, row.name], abs=SAME)
        assert same != about, row


def test_the_planted_layer_is_named() -> None:
    hard, planted = harden(residual(), Settings(kinds=("pair",), places=1, spread=6))
    of = case(hard)
    analysis = analyze(of.draft, of.batches())
    assert analysis.rows[0].name in planted[0].readers
    first = next(row for row in analysis.rows if row.kind == "activation")
    assert first.name in planted[0].tensors
    assert analysis.findings[0].name in planted[0].readers


@pytest.mark.parametrize("name", ["top1", "cosine", "mse"])
def test_the_drop_is_paired_with_fp32(name: str) -> None:
    metric: Metric = METRICS[name]()
    of = case(residual())
    (plain,) = of.outputs().values()
    labels = plain.argmax(axis=1)
    analysis = analyze(of.draft, of.batches(labels=labels), metric=metric)
    assert (analysis.metric, analysis.unit) == (metric.name, metric.unit)
    parts = {(row.kind, row.name): row for row in rows(of.draft.model, of.draft.placement)}
    row = analysis.rows[0]
    (int8,) = of.outputs(parts[row.kind, row.name].edges).values()
    target = labels if name == "top1" else plain
    before, after = (float(metric.value(metric.scores(a, target))) for a in (plain, int8))
    drop = before - after if metric.higher_is_better else after - before
    assert row.drop == pytest.approx(drop, rel=1e-3, abs=1e-9)


def test_a_metric_without_labels_is_left_out_and_said() -> None:
    of = case(residual())
    analysis = analyze(of.draft, of.batches(), metric=METRICS["top1"]())
    assert analysis.metric == ""
    assert all(row.drop is None for row in analysis.rows)
    assert analysis.notes == ("no metric was judged: top1 compares with labels, there are none",)


def test_a_metric_judges_the_output_that_is_named() -> None:
    of = case(shared())
    metric = METRICS["cosine"]()
    analysis = analyze(of.draft, of.batches(), metric=metric, output="side_out")
    layers = {row.name: row for row in analysis.rows if row.kind == "layer"}
    assert layers["last"].drop == pytest.approx(0, abs=1e-9)
    assert layers["last"].alone_db is None
    assert layers["side"].drop is not None
    assert layers["side"].drop > 0
    with pytest.raises(ConfigError, match="no output 'sid_out'"):
        analyze(of.draft, of.batches(), metric=metric, output="sid_out")


def test_no_sample_is_an_error() -> None:
    of = case(residual())
    with pytest.raises(DataError, match="no sample to analyze"):
        analyze(of.draft, [])


def test_a_model_that_draws_random_numbers_is_refused() -> None:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    x = net.add("Add", [x, net.add("RandomNormalLike", [x], name="chance")])
    of = case(net.finish(net.conv(x, (16, 16), name="last")))
    expected = "output 'last_out' differs by up to .*RandomNormalLike 'chance' may be why"
    with pytest.raises(ModelError, match=expected):
        analyze(of.draft, of.batches())


def test_bodies_integers_and_a_fixed_batch_pass_through_the_cuts() -> None:
    net = Net(seed=4)
    x = net.relu(net.conv(net.input(shape=(3, 16, 6, 6)), (16, 16), name="stem"))
    best = net.add("ArgMax", [x], attributes={"axis": 1, "keepdims": 1})
    y = net.relu(net.conv(x, (16, 16), name="body"))
    total = net.add("ReduceSum", [y], attributes={"keepdims": 0})
    positive = net.add("Greater", [total, net.weight("zero", np.asarray(0, np.float32))])
    info = onnx.helper.make_tensor_value_info
    branches = {
        name: onnx.helper.make_graph(
            [onnx.helper.make_node(inner, [y], [f"{name}_out"], f"{name}_node")],
            name,
            [],
            [info(f"{name}_out", onnx.TensorProto.FLOAT, (3, 16, 6, 6))],
        )
        for name, inner in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    y = net.add("If", [positive], attributes=branches)
    chosen = net.add("Cast", [best], attributes={"to": onnx.TensorProto.FLOAT})
    of = case(net.finish(net.conv(net.add("Add", [y, chosen]), (16, 16), name="last")))
    of = replace(of, inputs={n: np.concatenate([a, a[::-1] * 2]) for n, a in of.inputs.items()})
    analysis = analyze(of.draft, of.batches(3))
    assert {row.name for row in analysis.rows if row.kind == "layer"} >= {"stem", "body", "last"}
    assert analysis.all_db == pytest.approx(judged(of), abs=SAME)


def test_samples_of_several_lengths_are_analyzed() -> None:
    net = Net(seed=5)
    x = net.matmul(net.input(shape=("N", "T", 16)), (16, 16), name="up")
    turned = net.add("Transpose", [x], attributes={"perm": [0, 2, 1]})
    scores = net.add("Softmax", [net.add("MatMul", [x, turned], name="scores")])
    of = case(net.finish(net.matmul(net.add("MatMul", [scores, x]), (16, 16), name="down")))
    long = {name: np.repeat(array, 2, axis=1) for name, array in of.inputs.items()}
    batches = [*of.batches(SAMPLES), *replace(of, inputs=long).batches(SAMPLES)]
    analysis = analyze(of.draft, batches)
    assert analysis.samples == 2 * SAMPLES
    assert {"up", "down"} <= {row.name for row in analysis.rows if row.kind == "layer"}


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    of, path = case(residual()), tmp_path / "model.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="data", size_threshold=0)
    beside = replace(of.draft, model=prepare(load(path)).model)
    found = analyze(beside, of.batches())
    assert found.all_db == pytest.approx(judged(of), abs=SAME)
