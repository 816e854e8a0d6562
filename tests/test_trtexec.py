"""``quantlab trtexec`` of what a TensorRT with calibrators built, on a machine without it."""

from pathlib import Path

import pytest

from quantlab.engines.trt import plan
from tests.runs import quantlab, workspace

ENTROPY = "TRT-101601-EntropyCalibration2\nx: 3c010a14\n"
MINMAX = "TRT-101601-MinMaxCalibration\nx: 3c010204\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run with a plan of TensorRT 10 that was quantized implicitly."""
    engines = {"backend": "tensorrt", "quantization": "implicit", "cuda_graph": True}
    path = workspace(tmp_path, {"engines": engines, "calibration.tensors": "all"})
    (tmp_path / "run" / "engines").mkdir(parents=True)
    manifest = plan.Manifest(
        quantlab="0.1.0",
        created="2026-05-04T10:20:30+00:00",
        package="tensorrt",
        version="10.16.1.11",
        gpu="NVIDIA A10",
        compute_capability=(8, 6),
        precision="int8",
        quantization="implicit",
        model="prepared.onnx",
        model_sha256="5f2b" * 16,
        options=plan.Options(strongly_typed=False, around="fp16"),
    )
    plan.save(tmp_path / "run" / "engines" / "int8.plan", b"plan", manifest)
    (tmp_path / "run" / "calibration.cache").write_text(ENTROPY)
    return path


def test_the_cache_is_given_to_trtexec(config: Path) -> None:
    done = quantlab("trtexec", config)
    assert done.code == 0
    assert done.out.startswith("# int8, built by tensorrt 10.16.1.11\ntrtexec ")
    assert "--int8 --fp16 --calib=" in done.out
    assert "run/calibration.cache" in done.out
    assert "--useCudaGraph" in done.out
    assert "# note" not in done.out


def test_the_cache_that_tensorrt_made_itself_is_preferred(config: Path) -> None:
    own = config.with_name("run") / "engines" / "int8.calibration.cache"
    own.write_text(MINMAX)
    done = quantlab("trtexec", config)
    assert f"--calib={own.resolve()}" in done.out
    assert "is headed MinMaxCalibration, and --calib reads EntropyCalibration2 only" in done.out


def test_a_missing_cache_is_named(config: Path) -> None:
    (config.with_name("run") / "calibration.cache").unlink()
    done = quantlab("trtexec", config)
    assert done.code == 2
    assert "calibration.cache" in done.err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = quantlab("trtexec", tmp_path)
    assert done.code == 2
    assert "run.json holds no config: give the config file" in done.err
