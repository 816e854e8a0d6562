"""The sample that draws a picture and its prediction runs, as a process, against an engine."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import quantlab as ql
from quantlab.datasets.fashion_mnist import read_idx

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "deploy_mnist.py"
DATA = ROOT / "examples" / "fashion_mnist"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped MobileNet, built by OpenVINO."""
    folder = tmp_path_factory.mktemp("mobilenet")
    config = yaml.safe_load((DATA / "mobilenet.yaml").read_text())
    dataset = config["calibration"]["dataset"]
    dataset |= {key: str(DATA / dataset[key]) for key in ("images", "labels", "class_names")}
    config |= {"model": str(DATA / "mobilenet.onnx"), "benchmark": None, "output": "run"}
    config["calibration"] |= {"samples": 64}
    config["engines"] |= {"precisions": ["fp32", "int8"]}
    del config["evaluation"], config["targets"]
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(config))
    ql.calibrate(path)
    ql.build(path)
    return folder / "run"


def ran(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("--precision", "fp32")])
def test_a_picture_is_drawn_and_recognised(run: Path, arguments: tuple[str, ...]) -> None:
    done = ran(run, "--picture", 1, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    head, picture, chances, verdict = done.stdout.rstrip().split("\n\n", 3)
    assert head.startswith(f"{arguments[1] if arguments else 'int8'}: openvino ")
    (pixels,) = read_idx(DATA / "t10k-images-idx3-ubyte.gz", axes=3).rows(1, 2)
    lines = picture.split("\n")
    assert len(lines) == 28
    for line, row in zip(lines, pixels.astype(np.int64), strict=True):
        dark = [2 * at for at, shade in enumerate(row) if shade * 10 // 256 == 0]
        assert all(line[at : at + 2].strip() == "" for at in dark)
        assert len(line) <= 56
    assert "@@" in picture
    rows = re.findall(r"^ *(\S.*\S)  +([\d.]+) %(  #+)?$", chances, re.M)
    assert len(rows) == 10
    assert sum(float(percent) for _, percent, _ in rows) == pytest.approx(100, abs=0.1)
    assert verdict == "expected:  Pullover\npredicted: Pullover, right"
    best = max(rows, key=lambda row: float(row[1]))
    assert best[0] == "Pullover"
    assert len(best[2].strip()) == round(40 * float(best[1]) / 100)


def test_a_wrong_prediction_shows_and_exits_with_1(run: Path) -> None:
    done = ran(run / "engines" / "int8.xml", "--picture", 147)  # the network itself is 91 % sure
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("expected:  Shirt\npredicted: Dress, WRONG\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "deploy_mnist: nowhere: there is no such run folder"),
        (("RUN", "--precision", "fp16"), "holds no fp16 engine, but fp32, int8"),
        (("RUN", "--picture", "10000"), "the test split has pictures 0 to 9999"),
    ],
)
def test_bad_input_is_said(run: Path, arguments: tuple[str, ...], says: str) -> None:
    done = ran(*(str(run) if argument == "RUN" else argument for argument in arguments))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
