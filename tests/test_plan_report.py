"""Which TensorRT builds, and what is told where none does."""

import sys
from pathlib import Path

import onnx
import pytest

from quantlab.plan_report import plan
from quantlab.progress import Silent
from tests.graph.foreign import Spoilt
from tests.models import write


def test_without_any_tensorrt_the_report_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    model = write(Spoilt().model(), tmp_path / "m.onnx")
    report = plan(model, tmp_path, Silent())
    assert (report.builder, report.path) == ("", "")
    assert "quantlab[tensorrt]" in report.refused
    assert "quantlab[tensorrt-rtx]" in report.refused
    assert not (tmp_path / "engines").exists()


def test_open_axes_beside_the_first_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    proto = Spoilt().model()
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.checker.check_model(proto)
    report = plan(write(proto, tmp_path / "m.onnx"), tmp_path, Silent())
    assert report.builder
    assert "input x float32[2, 16, height, 8] has open axes beside the first" in report.refused
    assert not (tmp_path / "engines").exists()
