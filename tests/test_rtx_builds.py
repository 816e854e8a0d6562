"""Every shipped model, in every precision, becomes a plan of TensorRT-RTX without a GPU.

Here the real parser and the real builder judge the FP32, FP16 and Q/DQ graphs.
"""

import platform
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from quantlab.engines.trt import library, plan
from quantlab.engines.trt.plan import Here
from quantlab.errors import EngineError
from quantlab.records import PRECISIONS, Precision
from tests.runs import left_behind, quantlab, workspace

if (sys.platform, platform.machine()) != ("linux", "x86_64"):
    pytest.skip("TensorRT-RTX is published for Linux on x86-64", allow_module_level=True)

VERSION = library.load("tensorrt-rtx").version
"""Missing it must fail: what is proved here is proved nowhere else."""

pytestmark = pytest.mark.xdist_group("rtx")

EXAMPLES = Path(__file__).parents[1] / "examples" / "fashion_mnist"
TARGETS = "sm86,sm89,sm120"


@pytest.fixture(scope="module", params=["resnet", "mobilenet"])
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated and built run of a shipped model; its config lies beside ``run``."""
    folder = tmp_path_factory.mktemp(request.param)
    shipped = yaml.safe_load((EXAMPLES / f"{request.param}.yaml").read_text())
    dataset = shipped["calibration"]["dataset"]
    for key in ("images", "labels", "class_names"):
        dataset[key] = str(EXAMPLES / dataset[key])
    made = {
        "model": str(EXAMPLES / shipped["model"]),
        "calibration": {"dataset": dataset, "samples": 16, "batch": 8},
        "engines": {"backend": "tensorrt-rtx"},
        "benchmark": {"batches": [1, 8]},
        "output": "run",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(made))
    assert quantlab("calibrate", path).code == 0
    done = quantlab("build", path, "--targets", TARGETS)
    assert done.code == 0, done.err
    assert all(f"{precision}: engines/{precision}.plan" in done.out for precision in PRECISIONS)
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_is_built_for_its_targets(config: Path, precision: Precision) -> None:
    path = config.with_name("run") / "engines" / f"{precision}.plan"
    here = Here("tensorrt-rtx", VERSION, "NVIDIA RTX 4090", (8, 9))
    found = plan.load(path, here)
    assert found.manifest.targets == tuple(TARGETS.split(","))
    assert found.manifest.precision == precision
    assert found.manifest.quantization == ("explicit" if precision == "int8" else "none")
    assert len(found.data) > 100_000
    refused = Here("tensorrt-rtx", VERSION, "NVIDIA H100", (9, 0))
    with pytest.raises(EngineError, match=r"which NVIDIA H100 .* does not support this GPU"):
        plan.load(path, refused)


def test_a_build_is_done_once(config: Path) -> None:
    plans = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*.plan")}
    assert quantlab("build", config, "--targets", TARGETS).code == 0
    assert plans == {path: path.stat().st_mtime_ns for path in config.parent.rglob("*.plan")}


@pytest.mark.parametrize("of_the_folder", [True, False], ids=["RUN", "CONFIG"])
def test_trtexec_prints_what_would_do_the_same(config: Path, *, of_the_folder: bool) -> None:
    done = quantlab("trtexec", config.with_name("run") if of_the_folder else config)
    assert done.code == 0
    lines = done.out.splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert len(commands) == len(PRECISIONS) * (1 + 2)
    assert all(command[0] == "tensorrt_rtx" for command in commands)
    for command in commands:
        option, _, file = command[1].partition("=")
        assert option in ("--onnx", "--loadEngine")
        assert Path(file).is_file()
    assert sum("--computeCapabilities=86,89,120" in command for command in commands) == 3
    assert any("--shapes=image:8x1x28x28" in command for command in commands)


def test_targets_are_for_rtx(tmp_path: Path) -> None:
    done = quantlab("build", workspace(tmp_path), "--targets", "sm86")
    assert done.code == 2
    assert "--targets is for 'backend: tensorrt-rtx'" in done.err


def test_trtexec_of_another_backend_is_refused(tmp_path: Path) -> None:
    done = quantlab("trtexec", workspace(tmp_path))
    assert done.code == 2
    assert "found 'onnxruntime', which trtexec knows nothing of" in done.err


def test_a_bad_target_leaves_no_plan(tmp_path: Path) -> None:
    config = workspace(tmp_path, {"engines": {"backend": "tensorrt-rtx"}, "benchmark": None})
    assert quantlab("trtexec", config).code == 2
    assert quantlab("calibrate", config).code == 0
    for targets, message in (
        ("sm90", "it builds for sm75, sm80, sm86, sm89, sm120, sm121"),
        ("rtx4090", "expected a compute capability such as sm86"),
    ):
        done = quantlab("build", config, "--targets", targets)
        assert (done.code, message in done.err) == (2, True)
    assert "Traceback" not in done.err
    assert list(tmp_path.rglob("*.plan*")) == left_behind(tmp_path) == []
