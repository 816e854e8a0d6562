"""A network with channels planted unequal: named by analyze, restored by repair, searched."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import quantlab as ql
from benchmarks.networks.harden import Planted, Settings, harden
from quantlab.engines.ort_session import run, session
from quantlab.graph import model as graph
from quantlab.saved import load
from quantlab.steps.repair import Outcome
from tests.models import Net
from tests.runs import FAST, configured, outputs, quantlab, samples, workspace

COUNT = 96
AUTO = {
    **FAST,
    "calibration.method": "auto",
    "evaluation.metrics": ["cosine"],
    "engines": {"backend": "openvino", "precisions": ["fp32", "int8"]},
}


def plain() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), bias=True, name="stem"))
    for name in ("body", "neck"):
        x = net.relu(net.conv(x, (16, 16), name=name))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    return net.finish(net.gemm(x, (16, 8), name="head"))


@pytest.fixture
def hard(tmp_path: Path) -> tuple[Path, Planted]:
    """Return the config of a workspace whose network is hard in one place, and the place."""
    config = workspace(tmp_path, AUTO)
    made, planted = harden(plain(), Settings(seed=1, spread=6, places=1))
    onnx.save(made, tmp_path / "model.onnx")
    for name, seed in (("calib", 1), ("eval", 2)):
        x = samples(seed=seed, count=COUNT)
        labels = outputs(tmp_path / "model.onnx", {"x": x}).argmax(axis=1)
        np.savez(tmp_path / f"{name}.npz", x=x, labels=labels)
    (place,) = planted
    return config, place


def cosine(folder: Path) -> float:
    found = json.loads((folder / "report.json").read_text())["engines"]
    value = next(e for e in found if e["precision"] == "int8")["accuracy"]["cosine"]["value"]
    assert isinstance(value, float)
    return value


def test_analyze_names_what_was_planted_and_the_repair(hard: tuple[Path, Planted]) -> None:
    config, place = hard
    outcome = quantlab("analyze", config, "--samples", 30)
    assert outcome.code == 0, outcome.err
    folder = config.parent / "run"
    found = json.loads((folder / "analysis.json").read_text())
    assert found["samples"] == 30
    worst = {
        kind: next(r for r in found["rows"] if r["kind"] == kind)
        for kind in ("layer", "activation")
    }
    assert worst["layer"]["name"] in place.readers
    assert worst["activation"]["name"] in place.tensors
    assert found["findings"][0]["repair"] == "equalize"
    assert place.readers[0] in outcome.out.replace("\n", "")
    assert (folder / "analysis.csv").read_text().startswith("name,kind,")
    assert ql.run(config).report.analysis is not None


def test_repair_restores_it_and_leaves_fp32_alone(hard: tuple[Path, Planted]) -> None:
    config, _ = hard
    plain = ql.run(config).folder
    broken = cosine(plain)
    configured(config.parent, {**AUTO, "repair": "auto", "output": "repaired"})
    repaired = ql.run(config)
    assert broken < 0.99
    assert cosine(repaired.folder) > 0.9995
    found = repaired.report.repair
    assert found is not None
    assert "equalize" in [trial.repair for trial in found.trials if trial.kept]
    x = samples(seed=2, count=4)
    fp32 = [
        run(session(repaired.folder / name), ["head_out"], {"x": x})["head_out"]
        for name in ("prepared.onnx", "repaired.onnx")
    ]
    assert np.allclose(fp32[0], fp32[1], rtol=1e-4, atol=1e-4)
    graph.validate(repaired.folder / "int8.onnx")


def test_what_costs_speed_is_tried_for_a_target_that_is_missed(hard: tuple[Path, Planted]) -> None:
    config, _ = hard
    wanted = {"repair": "auto", "quantization": {"policy": "tensorrt"}}
    for targets, count in (({}, 0), ({"cosine": 0.99}, 0), ({"cosine": 0.9999999}, 1)):
        configured(config.parent, {**AUTO, **wanted, "targets": targets})
        ql.calibrate(config)
        found = load(config.parent / "run" / "repair.json", Outcome).found
        tried = [trial for trial in found.trials if trial.repair == "center"]
        assert len(tried) == count
    assert tried[0].note.startswith("centred 2 tensors, with an Add behind 2 layers")
    ql.build(config)
    nodes = onnx.load(config.parent / "run" / "int8.onnx").graph.node
    assert any(node.op_type == "Clip" for node in nodes) == tried[0].kept
    (config.parent / "calib.npz").unlink()
    ql.build(config)  # which reads no sample


def test_search_meets_a_target_and_says_what_it_chose(hard: tuple[Path, Planted]) -> None:
    config, _ = hard
    wanted = {"search": True, "targets": {"cosine": 0.9999}, "benchmark": {"batches": [4]}}
    configured(config.parent, {**AUTO, **wanted, "benchmark.seconds": 0.05})
    outcome = quantlab("run", config)
    assert outcome.code == 0, outcome.err + outcome.out
    report = ql.report(config.parent / "run").report
    assert report.search is not None
    assert report.search.met
    assert report.search.builds <= 20
    chosen = next(p for p in report.search.plans if p.label == report.search.chosen)
    assert chosen.on_front
    assert cosine(config.parent / "run") >= 0.9999
    (config.parent / "calib.npz").unlink()
    assert quantlab("report", config).code == 0, "which reads no sample"


def test_a_target_that_needs_labels_says_so(hard: tuple[Path, Planted]) -> None:
    config, _ = hard
    arrays = np.load(config.parent / "calib.npz")
    np.savez(config.parent / "calib.npz", x=arrays["x"])
    wanted = {"search": True, "evaluation.metrics": ["top1"], "targets": {"top1_drop": 0.5}}
    configured(config.parent, {**AUTO, **wanted})
    outcome = quantlab("run", config)
    assert outcome.code == 2
    assert "give the calibration dataset labels" in outcome.err
    configured(config.parent, {**FAST, **wanted, "search": False, "repair": "auto"})
    outcome = quantlab("calibrate", config)
    assert outcome.code == 0, outcome.err
    assert "top1_drop: calibration samples without labels cannot tell" in outcome.err


def test_a_target_that_nothing_meets_is_exit_3_with_the_best(hard: tuple[Path, Planted]) -> None:
    config, _ = hard
    shutil.copy(config.parent / "calib.npz", config.parent / "eval.npz")
    wanted = {"search": True, "targets": {"top1": 101.0}, "evaluation.metrics": ["top1"]}
    configured(config.parent, {**FAST, **wanted})
    outcome = quantlab("run", config)
    assert outcome.code == 3
    assert "top1: limit 101" in outcome.err
    report = ql.report(config.parent / "run").report
    assert report.search is not None
    assert not report.search.met
    assert any("on calibration samples" in text for text in report.warnings)


def test_a_network_without_a_quantizable_layer_is_exit_2(tmp_path: Path) -> None:
    config = workspace(tmp_path, {**AUTO, "repair": "auto"})
    configured(tmp_path, {**AUTO, "quantization": {"layers": {"*": "fp32"}}})
    outcome = quantlab("analyze", config)
    assert outcome.code == 2
    assert "no quantizable layer: " in outcome.err
    assert "stem" in outcome.err
