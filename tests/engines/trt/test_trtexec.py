"""Each version gets the flags that its trtexec has, quoted for the shell."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.base import ShapeRange
from quantlab.engines.trt.options import Float
from quantlab.engines.trt.plan import Manifest, Options, Plugin
from quantlab.engines.trt.trtexec import Bench, Commands, commands
from quantlab.records import Precision

PLAN = Path("runs/a run/engines/int8.plan")
CACHE = Path("runs/a run/calibration.cache")
BENCH = Bench(batches=(1, 32), seconds=3.0, warmup_seconds=0.2)
EXPLICIT = Options(strongly_typed=True)
WEAK = Options(strongly_typed=False, around="fp16")


def manifest(version: str = "10.16.1.11", **changes: object) -> Manifest:
    rtx = version.startswith("1.")
    made = Manifest(
        quantlab="0.1.0",
        created="2026-05-04T10:20:30+00:00",
        package="tensorrt-rtx" if rtx else "tensorrt",
        version=version,
        gpu="" if rtx else "NVIDIA A10",
        compute_capability=None if rtx else (8, 6),
        precision="int8",
        quantization="explicit",
        model="int8.onnx",
        model_sha256="5f2b" * 16,
        profiles=({"x": ShapeRange((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))},),
        options=EXPLICIT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # names are checked


def told(found: Manifest, bench: Bench = BENCH) -> Commands:
    return commands(found, PLAN, CACHE, bench)


def flags(line: str) -> list[str]:
    return shlex.split(line)


def test_a_strongly_typed_plan_of_10() -> None:
    found = told(manifest())
    assert flags(found.build) == [
        "trtexec",
        "--onnx=runs/a run/int8.onnx",
        "--saveEngine=runs/a run/engines/int8.trtexec.plan",
        "--stronglyTyped",
        "--noTF32",
        "--minShapes=x:1x3x8x8",
        "--optShapes=x:8x3x8x8",
        "--maxShapes=x:32x3x8x8",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    assert "'--onnx=runs/a run/int8.onnx'" in found.build
    assert [flags(line) for line in found.measure] == [
        [
            "trtexec",
            "--loadEngine=runs/a run/engines/int8.plan",
            f"--shapes=x:{batch}x3x8x8",
            "--warmUp=200",
            "--duration=3",
        ]
        for batch in (1, 32)
    ]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("version", "precision", "quantization", "options", "expected"),
    [
        ("8.6.1", "fp32", "none", WEAK, ["--noTF32"]),
        ("8.6.1", "fp16", "none", WEAK, ["--fp16", "--noTF32"]),
        ("8.6.1", "int8", "explicit", WEAK, ["--int8", "--fp16", "--noTF32"]),
        (
            "8.6.1",
            "int8",
            "implicit",
            replace(WEAK, around="fp32"),
            ["--int8", f"--calib={CACHE}", "--noTF32"],
        ),
        (
            "10.3.0.26",
            "int8",
            "implicit",
            replace(WEAK, tf32=True),
            ["--int8", "--fp16", f"--calib={CACHE}"],
        ),
        ("10.3.0.26", "fp16", "none", EXPLICIT, ["--stronglyTyped", "--noTF32"]),
        ("11.4.0.106", "int8", "explicit", EXPLICIT, ["--noTF32"]),
        ("11.4.0.106", "fp32", "none", replace(EXPLICIT, tf32=True), []),
        ("1.7.1.116", "int8", "explicit", EXPLICIT, []),
    ],
)
def test_types_by_version(
    version: str, precision: Precision, quantization: str, options: Options, expected: list[str]
) -> None:
    made = manifest(
        version, precision=precision, quantization=quantization, options=options, profiles=()
    )
    assert flags(told(made).build)[3:-2] == expected


def test_everything_else_that_a_builder_is_told() -> None:
    options = Options(
        strongly_typed=True,
        tf32=True,
        version_compatible=True,
        hardware_compatible="ampere_plus",
        stripped=True,
        optimization_level=5,
        memory={"workspace": 4 << 30, "tactic_shared_memory": 1000, "tactic_dram": 1 << 30},
        timing_cache="runs/timing.cache",
    )
    plugin = Plugin(path="/opt/libfoo.so", sha256="0" * 64)
    found = told(manifest(options=options, plugins=(plugin,), profiles=()), Bench(device_id=1))
    assert flags(found.build)[3:] == [
        "--stronglyTyped",
        "--memPoolSize=workspace:4096,tacticSharedMem:1000B",
        "--builderOptimizationLevel=5",
        "--timingCacheFile=runs/timing.cache",
        "--dynamicPlugins=/opt/libfoo.so",
        "--setPluginsToSerialize=/opt/libfoo.so",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
        "--stripWeights",
        "--device=1",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    assert found.notes == ("trtexec has no flag for the limit of memory pool tactic_dram",)
    assert flags(found.measure[0])[2:] == ["--warmUp=200", "--duration=3", "--device=1"]


def test_8_6_reads_mib_and_one_profile() -> None:
    profile = manifest().profiles[0]
    options = replace(WEAK, memory={"workspace": 1 << 18, "tactic_shared_memory": 1})
    found = told(manifest("8.6.1", options=options, profiles=(profile, profile)))
    assert "--memPoolSize=workspace:0.25" in flags(found.build)
    assert not any(flag.startswith("--profile=") for flag in flags(found.build))
    assert found.notes == (
        "the plan has 2 profiles; this trtexec takes the first only",
        "trtexec has no flag for the limit of memory pool tactic_shared_memory",
    )


def test_several_profiles_are_numbered() -> None:
    profile = manifest().profiles[0]
    build = flags(told(manifest(profiles=(profile, profile))).build)
    assert [flag for flag in build if flag.startswith("--profile=")] == [
        "--profile=0",
        "--profile=1",
    ]
    assert build.index("--profile=1") < len(build) - 1 - build[::-1].index("--minShapes=x:1x3x8x8")


def test_pins_of_weakly_typed_layers() -> None:
    pins: dict[str, Float] = {"/head/*": "fp32", "odd[0]": "fp16", "*a*b": "fp32"}
    found = told(manifest("10.3.0.26", quantization="implicit", options=replace(WEAK, pins=pins)))
    assert "--precisionConstraints=obey" in flags(found.build)
    assert "--layerPrecisions=/head/*:fp32" in flags(found.build)
    assert "--layerOutputTypes=/head/*:fp32" in flags(found.build)
    assert found.notes == ("pinned layers that trtexec cannot name this way: odd[0], *a*b",)


def test_rtx_has_a_tool_of_its_own() -> None:
    made = manifest("1.7.1.116", targets=("sm86", "sm120"))
    found = told(made, replace(BENCH, cuda_graph=True))
    build = flags(found.build)
    assert build[0] == "tensorrt_rtx"
    assert "--computeCapabilities=86,120" in build
    assert "--saveEngine=runs/a run/engines/int8.tensorrt_rtx.plan" in build
    assert flags(found.measure[0])[3:] == [
        "--warmUp=200",
        "--duration=3",
        "--includeDataTransfers",
        "--noSpinWait",
        "--rtxCudaGraphStrategy=wholeGraph",
        "--runtimeCacheFile=runs/a run/engines/int8.runtime-cache",
    ]
    assert found.notes == ("TF32 was switched off; tensorrt_rtx documents no flag for that",)


def test_a_cuda_graph_is_asked_for() -> None:
    found = told(manifest(), replace(BENCH, cuda_graph=True))
    assert all("--useCudaGraph" in flags(line) for line in found.measure)


NAMES = st.text(min_size=1, max_size=12).filter(lambda name: "\0" not in name)


@given(NAMES, st.lists(st.integers(1, 999), max_size=4))
def test_any_name_survives_the_shell(name: str, shape: list[int]) -> None:
    profile = {name: ShapeRange(tuple(shape), tuple(shape), tuple(shape))}
    build = flags(told(manifest(profiles=(profile,))).build)
    shown = f"'{name}'" if ":" in name else name
    axes = "x".join(map(str, shape)) or "scalar"
    assert f"--optShapes={shown}:{axes}" in build
