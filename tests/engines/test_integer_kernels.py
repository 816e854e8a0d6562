"""INT8 runs integer kernels, and each layer that does not is named."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from quantlab.engines.base import Engine, Runner
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.engines.openvino import OpenVino
from quantlab.engines.reference import Reference
from quantlab.records import EngineInfo, Precision
from tests.engines.models_for_engines import (
    float_net,
    half_net,
    images,
    quantized_net,
    saved,
)

Open = Callable[[Engine, onnx.ModelProto, Precision], Runner]
CASES = [
    pytest.param(OpenVino(threads=1), np.int8(0), id="openvino"),
    pytest.param(OnnxRuntime(threads=1), np.uint8(0), id="onnxruntime"),
]


def info_of(runner: Runner) -> EngineInfo:
    runner.run(images(2))
    return runner.describe()


@pytest.mark.parametrize(("engine", "zero"), CASES)
def test_every_convolution_runs_in_integers(
    opened: Open, engine: Engine, zero: np.int8 | np.uint8
) -> None:
    info = info_of(opened(engine, quantized_net(zero), "int8"))
    weighted = [layer for layer in info.layers if layer.weighted]
    convolutions = [layer for layer in weighted if layer.name in ("conv1", "conv2")]
    assert len(weighted) == 3
    assert len(convolutions) == 2
    assert all(layer.integer and layer.kernel for layer in convolutions)
    assert all(layer.ms is not None and layer.ms >= 0 for layer in convolutions)
    assert info.threads == 1


@pytest.mark.parametrize(("engine", "zero"), CASES)
def test_a_convolution_left_in_float_is_named(
    opened: Open, engine: Engine, zero: np.int8 | np.uint8
) -> None:
    model = quantized_net(zero, second_in_float=True)
    info = info_of(opened(engine, model, "int8"))
    by_name = {layer.name: layer for layer in info.layers if layer.weighted}
    assert not by_name["conv2"].integer
    assert by_name["conv1"].integer
    assert info.ran == "f32 + i8"
    assert any("in f32 instead of i8" in note and "conv2" in note for note in info.notes)


def test_the_reference_simulates_int8_and_says_so(opened: Open) -> None:
    info = info_of(opened(Reference(), quantized_net(np.int8(0)), "int8"))
    assert info.ran == "f32"
    assert not any(layer.integer for layer in info.layers if layer.weighted)
    (note,) = info.notes
    assert note.startswith("int8: of 3 weighted layers 3 in f32 instead of i8 because")
    assert note.endswith("conv1, conv2, fc")


def test_openvino_ir_keeps_one_byte_a_weight_and_the_answers(root: Path) -> None:
    model, engine = saved(quantized_net(np.int8(0)), root), OpenVino(threads=1)
    build = engine.build(model, "int8", root / "engines")
    floats = engine.build(saved(float_net(), root), "fp32", root / "engines")
    onnx.save(quantized_net(np.int8(0)), model)
    assert (root / "engines/int8.bin").stat().st_size < (root / floats.path).with_suffix(
        ".bin"
    ).stat().st_size / 2.5  # a quarter, beside biases and scales
    core = openvino.Core()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    direct = core.compile_model(core.read_model(model), "CPU", config)(images(3))[0]
    with engine.open(build, root) as runner:
        np.testing.assert_array_equal(runner.run(images(3))["y"], direct)


def test_fp16_halves_the_weights(root: Path) -> None:
    engine = OpenVino(threads=1)
    engine.build(saved(float_net(), root), "fp32", root / "engines")
    engine.build(saved(half_net(), root), "fp16", root / "engines")
    half, whole = ((root / f"engines/{p}.bin").stat().st_size for p in ("fp16", "fp32"))
    assert half == pytest.approx(whole / 2, rel=0.05)


def test_openvino_never_runs_bf16_and_says_when_fp16_is_missing(root: Path) -> None:
    """On this CPU and, where oneDNN can hide its newer instructions, on one without FP16."""
    model = saved(half_net(), root)
    script = (
        "import sys; from pathlib import Path; import openvino\n"
        "from quantlab.engines.openvino import OpenVino\n"
        "from tests.engines.models_for_engines import images\n"
        "model, root = Path(sys.argv[1]), Path(sys.argv[1]).parent\n"
        "engine = OpenVino(threads=1)\n"
        "build = engine.build(model, 'fp16', root / 'engines')\n"
        "with engine.open(build, root) as runner:\n"
        "    runner.run(images(1)); info = runner.describe()\n"
        "has = 'FP16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')\n"
        "print(has, info.ran, *info.notes, sep='|')\n"
    )
    for instructions in ({}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}):
        made = subprocess.run(
            [sys.executable, "-c", script, str(model)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | instructions | {"PYTHONPATH": str(Path.cwd())},
        )
        has, ran, *notes = made.stdout.strip().split("|")
        if has == "True":
            assert (ran, notes) == ("f16", [])
        else:
            assert ran == "f32"
            assert len(notes) == 1
            assert notes[0].startswith(
                "fp16: of 3 weighted layers 3 in f32 instead of f16 because this CPU has no FP16 "
                "arithmetic: conv1, conv2, "
            )


def test_onnxruntime_says_that_fp16_ran_in_fp32(opened: Open) -> None:
    info = info_of(opened(OnnxRuntime(threads=1), half_net(), "fp16"))
    assert "f32" in info.ran
    assert any("compute FP16 operators in FP32 between casts" in note for note in info.notes)
