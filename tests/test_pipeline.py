"""Whole runs: every backend, every step alone, the Python interface, what reports must tell."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import quantlab as ql
from quantlab import cache, pipeline, reports
from quantlab.engines import ENGINES
from quantlab.errors import EngineUnavailable, TargetMissed
from quantlab.records import PRECISIONS, Report
from tests.models import Net, write
from tests.runs import FAST, SAMPLES, configured, left_behind, network, outputs, samples, workspace

RESULTS = {
    *("prepared.onnx", "histograms.npz", "batch_amax.npz", "collection.json"),
    *("calibration.cache", "calibration.json", "int8.onnx", "fp16.onnx", "scores.npz"),
    *("evaluation.json", "inspection.json", "benchmark.json", "report.json", "report.md"),
    *("report.html", "run.json"),
}


def warned(report: Report, *words: str) -> bool:
    return any(all(word in text for word in words) for text in report.warnings)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_whole_run_on_every_usable_backend(backend: str, tmp_path: Path) -> None:
    try:
        ENGINES[backend]().runnable()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    changes = {"engines": {"backend": backend}, "benchmark.batches": [1, SAMPLES + 8]}
    config = workspace(tmp_path, changes)
    run = ql.run(str(config))

    assert run.folder == tmp_path / "run"
    assert {path.name for path in run.folder.iterdir()} >= RESULTS
    assert not left_behind(run.folder)
    assert reports.load(run.folder) == run.report
    engines = {engine.precision: engine for engine in run.report.engines}
    assert tuple(engines) == PRECISIONS
    assert engines["fp32"].accuracy["top1"].value == 100
    for precision in ("fp16", "int8"):
        accuracy = engines[precision].accuracy
        assert accuracy["top1"].samples == SAMPLES
        assert accuracy["top1"].value is not None
        assert accuracy["top1"].value >= 75
        assert accuracy["cosine"].value is not None
        assert accuracy["cosine"].value > 0.99
        speeds = engines[precision].performance
        assert [speed.batch for speed in speeds] == [1, SAMPLES + 8]
        assert all(speed.speedup is not None for speed in speeds)
    assert engines["int8"].size_bytes > 0
    decided = {row.name: row.threshold for row in run.report.tensors}
    scales = cache.read(run.folder / "calibration.cache").scales
    assert scales["x"] == pytest.approx(decided["x"] / 127, rel=1e-6)


def quantized_types(folder: Path) -> set[int]:
    """Return the element types that activations are quantized to in int8.onnx."""
    graph = onnx.load(folder / "int8.onnx").graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return {
        constants[node.input[2]].data_type
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }


def test_onnxruntime_gets_unsigned_activations_and_openvino_gets_tensorrts(tmp_path: Path) -> None:
    config = workspace(tmp_path, FAST)
    ql.calibrate(config)
    ql.build(config)
    assert onnx.TensorProto.UINT8 in quantized_types(tmp_path / "run")
    config = configured(tmp_path, {**FAST, "engines": {"backend": "openvino"}})
    ql.calibrate(config)
    ql.build(config)
    assert quantized_types(tmp_path / "run") == {onnx.TensorProto.INT8}


def test_the_steps_one_by_one_give_what_run_gives(tmp_path: Path) -> None:
    config = workspace(tmp_path, FAST)
    whole = ql.run(config)
    alone = tmp_path / "alone"
    found = ql.calibrate(config, output=alone)
    assert found.read_bytes() == (whole.folder / "calibration.cache").read_bytes()
    builds = ql.build(config, output=alone)
    assert [build.precision for build in builds] == ["fp32", "int8"]
    assert ql.evaluate(config, output=alone) == alone
    again = ql.report(config, output=alone)
    assert again.folder == alone
    assert again.report.tensors == whole.report.tensors
    accuracies = [[e.accuracy for e in run.report.engines] for run in (again, whole)]
    assert accuracies[0] == accuracies[1]


def test_a_report_is_rendered_again_from_its_folder(tmp_path: Path) -> None:
    config = workspace(tmp_path, FAST)
    run = ql.run(config)
    html = (run.folder / "report.html").read_bytes()
    (run.folder / "report.html").unlink()
    again = ql.report(run.folder)
    assert again.report == run.report
    assert (run.folder / "report.html").read_bytes() == html
    elsewhere = ql.report(run.folder, output=tmp_path / "copy")
    assert elsewhere.folder == tmp_path / "copy"
    assert (tmp_path / "copy" / "report.html").read_bytes() == html


def test_targets_are_judged_and_a_missed_one_is_named(tmp_path: Path) -> None:
    targets = {"top1_drop": 100.0, "cosine": 1.5}
    run = ql.run(workspace(tmp_path, {**FAST, "targets": targets}))
    assert {target.name: target.met for target in run.report.targets} == {
        "top1_drop": True,
        "cosine": False,
    }
    with pytest.raises(TargetMissed, match=r"1 of 2 targets missed: cosine: limit 1\.5, came 0\.9"):
        pipeline.check_targets(run.report)


def test_without_evaluation_and_benchmark_the_report_still_stands(tmp_path: Path) -> None:
    config = workspace(tmp_path, {**FAST, "evaluation": None, "engines.precisions": ["int8"]})
    run = ql.run(config)
    (engine,) = run.report.engines
    assert not engine.accuracy
    assert not engine.performance
    assert engine.layers
    assert run.report.tensors


@pytest.mark.parametrize("changes", [{}, {"evaluation.samples": SAMPLES // 2}])
def test_judging_on_calibration_samples_is_warned_about(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    same = {"evaluation.dataset": {"kind": "npz", "path": "calib.npz"}}
    assert warned(ql.run(workspace(tmp_path, {**FAST, **same, **changes})).report, "flatters INT8")


def test_equal_samples_in_another_file_are_warned_about(tmp_path: Path) -> None:
    config = workspace(tmp_path, FAST)
    assert not warned(ql.run(config).report, "flatters INT8")
    arrays = dict(np.load(tmp_path / "calib.npz"))
    np.savez(tmp_path / "eval.npz", **{name: array[::-1] for name, array in arrays.items()})
    assert warned(ql.run(config).report, "flatters INT8")


def images(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_skipped_images_are_counted_and_listed(tmp_path: Path) -> None:
    images(tmp_path / "images", 12)
    (tmp_path / "images" / "5.png").write_bytes(b"no image")
    (tmp_path / "images" / "7.png").write_bytes(b"")
    dataset = {"kind": "image_folder", "path": "images", "on_error": "skip"}
    config = workspace(tmp_path, {**FAST, "calibration.dataset": dataset})
    run = ql.run(config)
    assert run.report.calibration.samples == 10
    assert warned(run.report, "2 samples were skipped", "5.png", "7.png")
    known = json.loads((run.folder / "collection.json").read_text())["skipped"]
    assert len(known) == 2


def test_nonfinite_activations_can_be_left_out(tmp_path: Path) -> None:
    changes = {**FAST, "calibration.nonfinite": "ignore", "evaluation.metrics": ["cosine"]}
    config = workspace(tmp_path, changes)
    write(network(first="Log"), tmp_path / "model.onnx")
    x = np.abs(samples(seed=1)) + np.float32(0.1)
    np.savez(tmp_path / "eval.npz", x=x)
    x[3, 0, 0, 0], x[7, 1, 2, 3] = -1, 0
    np.savez(tmp_path / "calib.npz", x=x)
    run = ql.run(config)
    assert warned(run.report, "first_out: 1 NaN and 1 infinite elements were left out")
    (row,) = [row for row in run.report.tensors if row.name == "first_out"]
    assert (row.nan, row.inf) == (1, 1)


def test_weights_beyond_fp16_are_in_the_report_also_after_a_resume(tmp_path: Path) -> None:
    config = workspace(tmp_path, {"benchmark": None})
    model = onnx.load(tmp_path / "model.onnx")
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "head.bias"]
    values = np.array(onnx.numpy_helper.to_array(weight))
    values[0] = 1e6
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "model.onnx")
    for _ in range(2):
        assert warned(ql.run(config).report, "fp16: weights 'head.bias' exceed", "65504")


def test_a_model_with_a_fixed_batch_and_several_inputs(tmp_path: Path) -> None:
    net = Net()
    x = net.input("image", (4, 16, 8, 8))
    ids = net.input("ids", (4, 3), onnx.TensorProto.INT64)
    table = net.random("table", (5, 16))
    embedded = net.add("ReduceMean", [net.add("Gather", [table, ids])], attributes={"axes": [1]})
    pooled = net.add("Flatten", [net.add("GlobalAveragePool", [net.conv(x, (16, 16))])])
    together = net.add("Concat", [pooled, net.add("Flatten", [embedded])], attributes={"axis": 1})
    changes = {"evaluation.metrics": ["cosine"], "benchmark.batches": [1, 32]}
    config = workspace(tmp_path, changes)
    model = write(net.finish(net.gemm(together, (32, 8))), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    image = rng.normal(size=(8, 16, 8, 8)).astype(np.float32)
    indices = rng.integers(0, 5, (8, 3))
    assert outputs(model, {"image": image[:4], "ids": indices[:4]}).shape == (4, 8)
    for name in ("calib", "eval"):
        np.savez(tmp_path / f"{name}.npz", image=image, ids=indices)
    run = ql.run(config)
    assert [speed.batch for speed in run.report.engines[-1].performance] == [4]
    assert run.report.calibration.samples == 8


def test_a_method_with_parameters_and_tensors_for_old_tensorrt(tmp_path: Path) -> None:
    changes = {
        **FAST,
        "calibration.method": "percentile",
        "calibration.percentile": 99.0,
        "calibration.tensors": "all",
        "calibration.tensorrt": "8.6.1",
        "evaluation": None,
    }
    run = ql.run(workspace(tmp_path, changes))
    written = cache.read(run.folder / "calibration.cache")
    assert str(written.header) == "TRT-8601-EntropyCalibration2"
    assert len(written.scales) > len(run.report.tensors) - 1
    assert any(row.clipped_fraction > 0 for row in run.report.tensors)


def test_a_backend_that_computes_another_function_is_told(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16), name="stem"))
    # OpenVINO divides the last window by another count than ONNX's definition.
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    attributes = {**window, "ceil_mode": 1, "count_include_pad": 1}
    x = net.add("AveragePool", [x], attributes=attributes)
    changes = {**FAST, "engines.backend": "openvino", "evaluation.metrics": ["cosine"]}
    config = workspace(tmp_path, changes)
    write(net.finish(x), tmp_path / "model.onnx")
    with_pool = pipeline.run(config).report.warnings
    assert any("fp32: output" in text and "off ONNX Runtime's" in text for text in with_pool)
    faithful = pipeline.run(workspace(tmp_path / "other", changes)).report.warnings
    assert not any("off ONNX Runtime's" in text for text in faithful)
