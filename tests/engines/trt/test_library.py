"""What is installed is found; what is not, or is broken, is said with its remedy."""

import sys
from pathlib import Path

import pytest

from quantlab.engines.tensorrt import TensorRT, TensorRTRTX
from quantlab.engines.trt.capabilities import RTX
from quantlab.engines.trt.library import Library, load
from quantlab.errors import EngineUnavailable


def test_the_real_one_is_found(rtx: Library) -> None:
    assert rtx.capabilities is RTX
    assert str(rtx) == f"TensorRT-RTX {rtx.module.__version__}"
    assert rtx.version == rtx.module.__version__


def test_a_missing_one_names_the_module_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EngineUnavailable) as caught:
        load("tensorrt")
    assert str(caught.value).startswith("TensorRT cannot be used: Python module 'tensorrt' cannot")
    assert str(caught.value).endswith("pip install 'quantlab[tensorrt]'")
    with pytest.raises(EngineUnavailable, match=r"TensorRT-RTX cannot.*quantlab\[tensorrt-rtx\]"):
        TensorRTRTX().available()


def test_the_other_tensorrt_is_named_and_not_used(
    rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    message = f"TensorRT-{str(rtx)[9:12]} is installed: 'backend: tensorrt-rtx' uses it"
    with pytest.raises(EngineUnavailable, match=message):
        TensorRT().available()


@pytest.mark.parametrize("error", ["OSError", "ImportError", "RuntimeError"])
def test_a_library_that_does_not_load_is_said(
    error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text(f"raise {error}('libnvinfer.so.10: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineUnavailable, match=r"libnvinfer\.so\.10: cannot open.*pip install"):
        load("tensorrt")


def test_building_needs_no_gpu_and_says_for_which(rtx: Library) -> None:
    assert TensorRTRTX().available() == f"{rtx} for sm80, sm86, sm89, sm120, sm121 and later"
    assert TensorRTRTX(targets=("sm75", "sm86")).available() == f"{rtx} for sm75, sm86"


def test_without_tensorrt_the_models_of_newer_ones_are_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    recipe = TensorRT(quantization="implicit", pins={"conv*": "fp32"}).recipe
    assert (recipe.explicit, recipe.around, recipe.pins) == (False, "fp16", {"conv*": "fp32"})
