"""The accuracy benchmark: models are read rightly, figures hold, a stopped run goes on."""

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import confirming, figures, judging, page, tables, timing
from benchmarks.accuracy.calls import CALLS, configuration
from benchmarks.accuracy.integers import counted
from benchmarks.accuracy.material import Material, Source
from benchmarks.accuracy.networks import NETWORKS
from benchmarks.accuracy.request import INT8, Request
from benchmarks.accuracy.results import Results, Row, load
from benchmarks.accuracy.settings import QUANTLAB, SETTINGS, TARGETS
from benchmarks.accuracy.stored import once
from benchmarks.accuracy.structure import structure
from benchmarks.accuracy.tasks import TASKS
from quantlab.configfile import load as load_config
from quantlab.plugs import PLUGS
from tests.models import Net
from tests.processes import apart

OURS = [name for name, setting in SETTINGS.items() if setting.tool == QUANTLAB]
COUNT = 24
ROOT = Path(__file__).resolve().parents[2]
QUICK = timing.Schedule(batches=(1, 2), openings=2, rounds=2, seconds=0.001)


def network() -> onnx.ModelProto:
    made = Net()
    x = made.add("Relu", [made.conv(made.input("image", ("N", 3, 8, 8)), (3, 16))])
    x = made.add("Add", [x, made.conv(x, (16, 16))])
    x = made.add("Flatten", [made.add("GlobalAveragePool", [x])])
    return made.finish(made.gemm(x, (16, 10), name="last"))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A small classifier that quantlab quantized, with noise for samples."""
    material = Material("resnet20", "ordinary", tmp_path_factory.mktemp("resnet20"))
    onnx.save(network(), material.model)
    rng = np.random.default_rng(0)
    for part in ("calibration", "evaluation"):
        images = rng.standard_normal((COUNT, 3, 8, 8)).astype(np.float32)
        labels = rng.integers(0, 10, COUNT)
        np.savez(material.folder / f"{part}.npz", allow_pickle=False, image=images, labels=labels)
    setting = "quantlab-mse"
    material.cell(setting).mkdir()
    CALLS[QUANTLAB](material.request(setting), SETTINGS[setting].options)()
    return material


def test_a_request_survives_the_disk_and_cuts_batches(quantized: Material) -> None:
    request = replace(quantized.request("quantlab-mse"), batch=10)
    assert Request.read(request.write()) == request
    assert [len(batch["image"]) for batch in request.batches()] == [10, 10, 4]


@pytest.mark.parametrize("setting", OURS)
@pytest.mark.parametrize("metric", TARGETS)
def test_every_setting_of_quantlab_is_a_config(setting: str, metric: str, tmp_path: Path) -> None:
    request = Request(setting, "m.onnx", "s.npz", "e.npz", metric, False, 32, str(tmp_path))  # noqa: FBT003
    path = tmp_path / "config.json"
    path.write_text(json.dumps(configuration(request, SETTINGS[setting].options)))
    config = load_config(path, PLUGS)
    assert bool(config.targets) == (config.repair == "auto")


def test_what_is_in_an_int8_model_is_counted(quantized: Material) -> None:
    found = counted(quantized.cell("quantlab-mse") / INT8)
    convolutions = 8 * 8 * 9 * 16 * (3 + 16)
    assert (found["layers"], found["quantized"]) == (3, 2), "ten classes are too narrow"
    assert found["int8_macs"] == convolutions
    assert found["macs"] == convolutions + 16 * 10
    assert found["activations"] == ["int8"]
    plain = counted(quantized.model)
    assert (plain["layers"], plain["quantized"], plain["activations"]) == (3, 0, [])
    assert plain["macs"] == found["macs"]


def test_a_structure_ignores_numbers_but_not_zero_points(
    quantized: Material, tmp_path: Path
) -> None:
    path = quantized.cell("quantlab-mse") / INT8
    reference = structure(path)
    for ending, same in (("_scale", True), ("_zero_point", False)):
        model = onnx.load(path)
        tensor = next(t for t in model.graph.initializer if t.name.endswith(ending))
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array + np.ones(1, array.dtype)[0], tensor.name))
        onnx.save(model, tmp_path / "other.onnx")
        assert (structure(tmp_path / "other.onnx") == reference) is same
    assert structure(quantized.model) != reference


def test_a_model_is_judged_against_fp32_and_timed(quantized: Material) -> None:
    found = judging.judged(quantized, "quantlab-mse")
    value, low, high = found["metrics"]["top1"]["drop"]
    metric = found["metrics"]["top1"]
    assert value == pytest.approx(metric["fp32"] - metric["int8"])
    assert low <= value <= high
    shape = found["structure"]
    # Both runtimes at work in one process are the benchmark's affair, not that of other tests.
    times = apart(timing.timed, quantized, ["quantlab-mse"], QUICK)
    for runtime in timing.RUNTIMES:
        assert set(times[runtime]) == {"fp32", shape}
        assert times[runtime][shape]["kernels"]["weighted"] == 3
        for batch in ("1", "2"):
            assert len(times[runtime][shape][batch]["runs"]) == QUICK.openings
    assert times["openvino"][shape]["kernels"]["integer"] == 2
    assert times["openvino"][shape]["blocked"] == 0
    assert times["openvino"]["fp32"]["kernels"]["integer"] == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_drops_are_paired(right: list[tuple[bool, bool]]) -> None:
    expected, got = (100.0 * np.array(column) for column in zip(*right, strict=True))
    interval = judging.paired(expected, got)
    assert interval.value == pytest.approx(expected.mean() - got.mean())
    same = judging.paired(expected, expected)
    assert (same.low, same.value, same.high) == (0, 0, 0)


@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=12), st.floats(0.5, 4), st.integers(1, 100)
)
def test_a_ratio_of_speeds_is_paired_by_round(
    seconds: list[float], times: float, runs: int
) -> None:
    slow = {"runs": [runs] * len(seconds), "seconds": [one * times for one in seconds]}
    fast = {"runs": [runs] * len(seconds), "seconds": seconds}
    interval = timing.ratio(fast, slow)
    assert [interval.low, interval.value, interval.high] == pytest.approx([times] * 3)


def test_a_peer_needs_nothing_of_ours() -> None:
    absent = "quantlab", "PIL", "pydantic", "onnxruntime", "torch", "pandas", "scipy", "onnx_ir"
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))  # None: an import of it fails
import benchmarks.accuracy.child
"""
    run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    done = []

    def work() -> dict[str, Any]:
        done.append(1)
        return {"count": len(done)}

    path = tmp_path / "found.json"
    assert [once(path, {"seed": seed}, work)["count"] for seed in (0, 0, 1, 1, 0)] == [
        1,
        1,
        2,
        2,
        3,
    ]


def test_calibration_samples_are_of_the_seed() -> None:
    task = TASKS["fashion"]
    first, again, other = (task.calibration(Path(), 40, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)
    assert len(np.unique(first.labels)) == 10, "drawn from all classes"


def test_sentences_are_retrieved_by_their_documents() -> None:
    task = TASKS["embed"]
    labels = task.evaluation(Path(), 8).labels
    vectors = np.eye(4, dtype=np.float32)[labels]
    scores = task.scores(vectors, labels, vectors)
    assert scores["cosine"].tolist() == [1.0] * 8
    assert scores["retrieved"].tolist() == [100.0] * 4
    swapped = task.scores(vectors[::-1].copy(), labels, vectors)
    assert swapped["retrieved"].tolist() == [100.0] * 4, "of one document all the same"
    turned = np.concatenate([vectors[:4], np.roll(vectors[4:], 1, axis=0)])
    assert task.scores(turned, labels, vectors)["retrieved"].tolist() == [0.0] * 4


def test_missing_networks_and_data_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(tmp_path, tmp_path / "cifar.npz", samples=1, evaluation=1, seed=0)
    assert source.missing(["fashion-resnet"]) == []
    given = ["--networks", "vit", "--nets", str(tmp_path), "--data", str(tmp_path / "cifar.npz")]
    assert command.main(given) == 2
    said = capsys.readouterr().out
    assert f"there is no {tmp_path / 'vit.onnx'}" in said
    assert "benchmarks/networks/README.md" in said
    assert "--data" in said


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments(["--tools", "nncf,nnfc"])
    assert "unknown 'nnfc'" in capsys.readouterr().err


def row(setting: str, drop: float, *, form: str = "ordinary", network: str = "resnet20") -> Row:
    metric = TASKS[NETWORKS[network].task].metric
    contents = {"layers": 2, "quantized": 2, "macs": 10, "int8_macs": 9, "activations": ["int8"]}
    judged = {
        "metrics": {metric: {"fp32": 90.0, "int8": 90.0 - drop, "drop": [drop, drop, drop]}},
        "contents": contents,
    }
    quantized = {"end": "finished", "seconds": 1.0, "process_seconds": 2.0, "peak_bytes": 1 << 30}
    return Row(network, form, setting, metric, quantized | {"error": ""}, judged, {}, {})


def stored(*rows: Row, beyond: float = 0.0) -> Results:
    others = {r.setting: [beyond, beyond, beyond] for r in rows if r.peer}
    compared = {r.setting: others for r in rows if not r.peer}
    name = f"{rows[0].network}-{rows[0].form}"
    return Results({}, {}, rows, {}, {name: compared}, {})


@pytest.mark.parametrize(("drop", "beyond", "missed"), [(0.2, 0.0, 0), (0.4, 0.0, 1), (0, 0.2, 1)])
def test_an_ordinary_network_is_held_to_both_limits(
    drop: float, beyond: float, missed: int
) -> None:
    found = stored(row("quantlab-auto", drop), row("ort-minmax-s8", 0.2), beyond=beyond)
    checked = list(figures.figures(found))
    assert [f.at_most for f in checked] == [figures.PLAIN_DROP, figures.WORSE]
    assert len(figures.missed(checked)) == missed


def test_the_best_peer_counts_on_samples_that_it_was_not_chosen_by() -> None:
    rows = [row("quantlab-auto", 0.2), row("ort-minmax-s8", 0.1), row("modelopt-max", 0.4)]
    found = stored(*rows, beyond=0.1)
    assert [(r.setting, peer.setting) for r, peer in confirming.pairs(found)] == [
        ("quantlab-auto", "ort-minmax-s8")
    ]
    for peer, value in (("ort-minmax-s8", 0.05), ("modelopt-max", 0.1)):
        fresh = {"peer": peer, "samples": 8000, "beyond": [0.05, 0.0, 0.2]}
        fresh |= {"whole": 10000, "lost": [0.15, -0.1, 0.4]}
        confirmed = replace(found, confirmed={"resnet20-ordinary": {"quantlab-auto": fresh}})
        lost, behind = list(figures.figures(confirmed))[:2]
        assert behind.value == value, "another peer's is of an older run"
        assert (lost.value, lost.low, lost.high) == (0.15, -0.1, 0.4), "of the whole test split"


def test_what_has_a_limit_is_judged_on_the_whole_test_split() -> None:
    rows = [row("quantlab-auto", 0.2), row("quantlab-mse", 0.1), row("ort-minmax-s8", 0.1)]
    rows += [row("quantlab-repair", 0.2), row("quantlab-search", 0.2)]
    hard = [row(name, 0.2, form="hard") for name in ("quantlab-auto", "quantlab-repair")]
    denoiser = [row("quantlab-search", 0.01, network="denoiser")]
    found = [(r.form, r.setting, p and p.setting) for r, p in confirming.asked(stored(*rows))]
    assert found == [
        ("ordinary", "quantlab-auto", "ort-minmax-s8"),
        ("ordinary", "quantlab-search", None),
    ]
    assert [r.setting for r, _ in confirming.asked(stored(*hard))] == ["quantlab-repair"]
    assert not list(confirming.asked(stored(*denoiser)))


def test_both_are_judged_on_the_rest_of_the_test_split(quantized: Material, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (COUNT + 6, 8, 8, 3), np.uint8)
    pieces = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "jpeg")
        pieces.append(buffer.getvalue())
    np.savez(
        tmp_path / "data.npz",
        test_jpeg=np.frombuffer(b"".join(pieces), np.uint8),
        test_ends=np.cumsum([len(piece) for piece in pieces]),
        test_labels=np.arange(len(pieces)) % 10,
    )
    quantized.cell("float").mkdir()
    shutil.copy(quantized.model, quantized.cell("float") / INT8)
    for setting in ("float", "quantlab-mse"):
        judging.judged(quantized, setting)
    source = Source(tmp_path, tmp_path / "data.npz", COUNT, COUNT, 0)
    same = confirming.confirmed(quantized, "float", "float", source)
    assert same["lost"] == same["beyond"] == [0.0, 0.0, 0.0]
    assert (same["peer"], same["samples"], same["whole"]) == ("float", 6, COUNT + 6)
    found = confirming.confirmed(quantized, "quantlab-mse", "float", source)
    for name, samples in (("beyond", 6), ("lost", COUNT + 6)):
        value, low, high = found[name]
        assert low <= value <= high
        assert value * samples / 100 == pytest.approx(round(value * samples / 100))
    alone = confirming.confirmed(quantized, "quantlab-mse", None, source)
    assert alone == {name: found[name] for name in ("whole", "lost")}


@pytest.mark.parametrize(("network", "drop", "met"), [("resnet20", 1.2, False), ("vit", 0.9, True)])
def test_a_hard_network_is_held_to_a_point(network: str, drop: float, met: bool) -> None:  # noqa: FBT001
    ours = row("quantlab-repair", drop, form="hard", network=network)
    peer = row("nncf", 40.0, form="hard", network=network)
    first, best = figures.figures(stored(ours, peer))
    assert first.met is met
    assert (best.value, best.met) == (40.0, None)


def test_a_search_is_held_to_its_target_and_to_its_work() -> None:
    checked = list(figures.figures(stored(row("quantlab-search", 0.01, network="sequence"))))
    assert [f.value for f in checked] == [pytest.approx(0.99), 90.0]
    assert [f.met for f in checked] == [False, True]


def timed(setting: str, seconds: float | list[float], integer: int) -> Row:
    taken = seconds if isinstance(seconds, list) else [seconds, seconds]
    times = {"runs": [1] * len(taken), "seconds": taken}
    kernels = {"weighted": 2, "integer": integer}
    found = {"kernels": kernels, "blocked": 0, "1": times, "32": times}
    return replace(row(setting, 0.0), runtimes={"openvino": found})


def test_speed_and_kernels_are_held_to_the_best_peer() -> None:
    rows = timed("quantlab-auto", 1.0, 2), timed("nncf", 0.5, 2), timed("modelopt-max", 2.0, 1)
    checked = {f.name.partition(", openvino")[2]: f for f in figures.figures(stored(*rows))}
    assert checked[", batch 1: speed over the fastest peer's"].value == 0.5
    assert checked[", batch 1: speed over the fastest peer's"].met is False
    assert checked[": integer kernels"].met
    assert checked[": Q/DQ pairs that block a fusion"].met


def test_the_fastest_peer_is_compared_on_openings_that_it_was_not_chosen_by() -> None:
    lucky, steady = timed("nncf", [0.1, 1.5, 1.5], 2), timed("modelopt-max", [1.0] * 3, 2)
    rows = timed("quantlab-auto", [1.0] * 3, 2), lucky, steady
    speeds = [f for f in figures.figures(stored(*rows)) if "speed" in f.name]
    # It is faster in the first opening, which only the other openings could choose it for.
    assert [f.value for f in speeds] == [pytest.approx((1.0 + 1.5 + 1.5) / 3)] * 2


def test_symmetric_models_are_timed_against_symmetric_ones_and_unsigned_ones_against_all() -> None:
    peer = timed("nncf", 0.5, 2)
    contents = peer.judged["contents"] | {"activations": ["int8", "uint8"]}
    peer = replace(peer, judged=peer.judged | {"contents": contents})
    rows = (timed(f"quantlab-auto{policy}", 1.0, 2) for policy in ("", "-openvino"))
    names = [f.name for f in figures.figures(stored(*rows, peer)) if "batch 1:" in f.name]
    assert names == [
        "resnet20, quantlab auto, for OpenVINO, openvino, batch 1: speed over the fastest peer's"
    ]


def test_a_peer_that_refuses_a_network_is_a_row_with_its_words() -> None:
    quantized: dict[str, Any] = {"end": "failed", "error": "ValueError: a | b"}
    quantized |= {"process_seconds": 1.0, "peak_bytes": 1 << 30}
    refused = Row("vit", "ordinary", "nncf", "top1", quantized, {}, {}, {})
    (line,) = tables.accuracy([refused])
    assert "ValueError: a / b" in line
    assert len(line) == len(tables.ACCURACY)
    assert figures.broken(stored(refused)) == []
    ours = replace(refused, setting="quantlab-mse")
    assert figures.broken(stored(ours)) == ["vit ordinary quantlab-mse: failed ValueError: a | b"]


def test_the_page_is_that_of_the_result_file() -> None:
    text = page.PAGE.read_text()
    assert page.filled(text) == text, "python -m benchmarks.accuracy.page"


def test_results_survive_the_disk(tmp_path: Path) -> None:
    found = stored(row("quantlab-auto", 0.1), row("nncf", 0.2))
    found.save(tmp_path / "accuracy.json", list(figures.figures(found)))
    assert load(tmp_path / "accuracy.json") == found
