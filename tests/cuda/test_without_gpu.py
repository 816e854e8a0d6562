"""What holds on a machine without a GPU: the kernels compile, and messages say what is missing."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from quantlab.cuda import layout, nvrtc
from quantlab.cuda.counter import View, described
from quantlab.cuda.device import kernels, source
from quantlab.errors import EngineError, EngineUnavailable


@pytest.fixture(scope="module")
def compiler() -> None:
    try:
        nvrtc.version()
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("architecture", [75, 80, 90, 120])
def test_the_kernels_compile_for(architecture: int) -> None:
    code = kernels(architecture)
    assert code.startswith(b"\x7fELF")
    for name in (b"count", b"rest", b"settle"):
        assert name in code


@pytest.mark.usefixtures("compiler")
def test_a_newer_gpu_gets_ptx_of_the_newest_that_is_known() -> None:
    newest = nvrtc.architectures()[-1]
    code = nvrtc.compile_source(source(), 999, layout.DEFINITIONS)
    assert f".target sm_{newest}".encode() in code


@pytest.mark.usefixtures("compiler")
def test_denormals_are_kept() -> None:
    ptx = nvrtc.compile_source(source(), 999, layout.DEFINITIONS).decode()
    assert "cvt.f32.f16" in ptx
    assert not re.search(r"\.ftz\b", ptx)


@pytest.mark.usefixtures("compiler")
def test_a_gpu_that_is_too_old() -> None:
    with pytest.raises(EngineUnavailable, match=r"compute capability 3.5 is below"):
        nvrtc.compile_source(source(), 35, layout.DEFINITIONS)


@pytest.mark.usefixtures("compiler")
def test_what_the_compiler_refuses_is_said() -> None:
    with pytest.raises(EngineError, match=r"(?s)NVRTC refuses.*kernels\.cu\(1\)"):
        nvrtc.compile_source("__global__ void broken( {", 90)


def test_the_structures_are_as_large_as_the_kernels() -> None:
    assert (layout.TENSOR.itemsize, layout.STATE.itemsize) == (40, 64)
    assert np.array(layout.START, layout.STATE)["exponent"] == -1000


def test_the_table_of_a_launch() -> None:
    tile = layout.TILE
    views = [
        View(64, (2, tile), "float32"),
        View(0, (2, 0), "float16"),
        View(128, (), "bfloat16"),
        View(256, (5, tile), "float16"),
    ]
    table, tiles = described(views, 2)
    assert tiles == 2 + 0 + 1 + 5
    assert table["first_tile"].tolist() == [0, 2, 2, 3]
    assert table["size"].tolist() == [2 * tile, 0, 1, 5 * tile]
    assert table["per_sample"].tolist() == [tile, 1, 1, 5 * tile]
    assert table["kind"].tolist() == [0, 1, 2, 1]


def said(code: str) -> str:
    """Run Python code in a process that no GPU is visible to; return what it prints."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


TRY = """
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
from quantlab.errors import EngineUnavailable
from {module} import {name}
try:
    {name}({arguments})
except EngineUnavailable as error:
    print(error)
"""


def test_a_driver_or_gpu_that_is_missing_is_said() -> None:
    pytest.importorskip("pycuda", reason="PyCUDA is not installed")
    text = said(TRY.format(hidden=[], module="quantlab.cuda.device", name="Device", arguments=""))
    assert text.startswith("CUDA cannot be used: ")
    assert "'executor.kind: local'" in text


def test_pycuda_missing_is_said() -> None:
    hidden = ["pycuda", "pycuda.driver"]
    text = said(
        TRY.format(hidden=hidden, module="quantlab.cuda.device", name="Device", arguments="")
    )
    assert "PyCUDA cannot be imported" in text
    assert "pip install 'quantlab[gpu]'" in text


def test_a_lane_without_cuda_says_what_to_install() -> None:
    text = said(
        TRY.format(
            hidden=["pycuda", "pycuda.driver"],
            module="quantlab.collect.cuda",
            name="CudaLane",
            arguments="None, [], []",
        )
    )
    assert re.search(r"has no CUDA provider; replace it: pip|PyCUDA cannot be imported", text)


def test_nothing_of_cuda_is_loaded_before_it_is_used() -> None:
    code = """
import sys
import quantlab.collect.cuda, quantlab.cuda.counter
print([name for name in ("pycuda", "onnxruntime") if name in sys.modules])
"""
    assert said(code).strip() == "[]"
