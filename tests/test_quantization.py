"""The config's policy and layers reach every step, and a change of them does only what it must."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.runs import FAST, Outcome, quantlab, workspace


def run(folder: Path, **quantization: object) -> Outcome:
    engine = {"backend": "openvino", "threads": 1, "precisions": ["fp32", "int8"]}
    changes = {**FAST, "engines": engine, "quantization": quantization}
    changes.pop("engines.precisions")
    return quantlab("run", workspace(folder, changes), "--quiet")


def decisions(folder: Path) -> dict[str, str]:
    report = json.loads((folder / "run" / "report.json").read_text())
    return {row["node"]: row["rule"] for row in report["placement"]}


def activations(folder: Path) -> dict[str, np.dtype[np.generic]]:
    """Return the integer type of each quantized activation."""
    graph = onnx.load(folder / "run" / "int8.onnx").graph
    zeros = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    return {
        n.input[0]: zeros[n.input[2]].dtype for n in graph.node if n.op_type == "QuantizeLinear"
    }


def test_the_backend_s_policy_is_the_default(tmp_path: Path) -> None:
    assert run(tmp_path).code == 0
    assert set(activations(tmp_path).values()) == {np.dtype(np.int8)}
    assert decisions(tmp_path)["body"] == "conv"


def test_a_policy_of_the_config_places_builds_and_is_reported(tmp_path: Path) -> None:
    done = run(tmp_path, policy="openvino")
    assert done.code == 0, done.err
    kinds = activations(tmp_path)
    assert kinds["x"] == np.int8, "the samples are negative too"
    assert {kind for name, kind in kinds.items() if name != "x"} == {np.dtype(np.uint8)}


def test_conservative_leaves_first_and_last_in_floating_point(tmp_path: Path) -> None:
    assert run(tmp_path, policy="conservative").code == 0
    assert decisions(tmp_path)["stem"] == "first-layer"
    assert decisions(tmp_path)["head"] == "last-layer"
    assert "x" not in activations(tmp_path)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "reference"])
def test_layers_of_the_config_hold_for_every_backend(backend: str, tmp_path: Path) -> None:
    changes = {
        **FAST,
        "engines.backend": backend,
        "quantization": {"layers": {"*": "fp32", "body": "int8"}},
    }
    if backend == "reference":
        changes["engines"] = {"backend": backend, "precisions": ["fp32", "int8"]}
        changes.pop("engines.backend")
        changes.pop("engines.precisions")
    done = quantlab("run", workspace(tmp_path, changes), "--quiet")
    assert done.code == 0, done.err
    found = decisions(tmp_path)
    assert found["stem"] == found["head"] == "pinned"
    weights = {
        node.input[0]
        for node in onnx.load(tmp_path / "run" / "int8.onnx").graph.node
        if node.op_type == "DequantizeLinear" and "weight" in node.input[0]
    }
    assert weights == {"body.weight_quantized"}


def test_int8_reaches_what_the_rules_leave_in_floating_point(tmp_path: Path) -> None:
    assert run(tmp_path / "free").code == 0
    assert decisions(tmp_path / "free")["head"] == "narrow-product"
    assert run(tmp_path / "wanted", layers={"head": "int8"}).code == 0
    assert decisions(tmp_path / "wanted")["head"] == "forced"


def test_a_change_of_layers_is_noticed_and_none_does_nothing(tmp_path: Path) -> None:
    files = [tmp_path / "run" / name for name in ("int8.onnx", "calibration.cache")]

    def state() -> list[tuple[bytes, int]]:
        return [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]

    def again(layers: str) -> int:
        config = workspace(tmp_path, FAST)
        config.write_text(f"{config.read_text()}quantization: {{layers: {layers}}}\n")
        return quantlab("run", config, "--quiet").code

    assert again("{body: fp32, '*': int8}") == 0
    first = state()
    assert again("{body: fp32, '*': int8}") == 0
    assert state() == first
    assert decisions(tmp_path)["body"] == "kernel-weights", "the last pattern counts"
    assert again("{'*': int8, body: fp32}") == 0
    assert decisions(tmp_path)["body"] == "pinned"
    assert state()[0][0] != first[0][0]


@pytest.mark.parametrize(
    ("quantization", "engines", "message"),
    [
        ({"policy": "openvin"}, {}, "'tensorrt', 'openvino', 'onnxruntime' or 'conservative'"),
        ({"layers": {"stem": "int4"}}, {}, "'fp32', 'fp16' or 'int8'"),
        ({"layer": {}}, {}, "did you mean 'layers'"),
        ({"layers": {"nowhere*": "fp32"}}, {}, r"a name like 'nowhere*'"),
        ({"layers": {"relu*": "int8"}}, {}, "and a form in INT8"),
        ({"policy": "openvino"}, {"backend": "tensorrt-rtx"}, "makes UINT8, which TensorRT"),
    ],
)
def test_what_cannot_be_is_said(
    quantization: object, engines: dict[str, object], message: str, tmp_path: Path
) -> None:
    changes: dict[str, object] = {**FAST, "quantization": quantization}
    if engines:
        changes = {"benchmark": None, "engines": engines, "quantization": quantization}
    done = quantlab("run", workspace(tmp_path, changes), "--quiet")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
