"""``capabilities.py`` and ``library.load`` say of each release what its bindings say."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from quantlab.engines.trt import execution, implicit, runner
from quantlab.engines.trt.capabilities import RTX, TABLE, Capabilities, capabilities
from quantlab.engines.trt.log import LEVELS
from quantlab.engines.trt.options import Pool, Settings
from quantlab.engines.trt.targets import DEFAULT, SPECIAL
from tests.trt_bindings.compare import find
from tests.trt_bindings.releases import Release, parameters, run
from tests.trt_bindings.test_api import genuine

EVIDENCE: dict[str, tuple[str, ...]] = {
    "implicit": (
        "BuilderFlag.FP16",
        "BuilderFlag.INT8",
        "BuilderFlag.OBEY_PRECISION_CONSTRAINTS",
        "IBuilderConfig.int8_calibrator",
        "ILayer.precision",
        "Module.IInt8EntropyCalibrator2",
        "Module.IInt8MinMaxCalibrator",
    ),
    "strong": ("NetworkDefinitionCreationFlag.STRONGLY_TYPED",),
    "monitor": ("Module.IProgressMonitor", "IBuilderConfig.progress_monitor"),
    "named_errors": ("ParserError.node_name", "ParserError.node_operator"),
    "strip_plan": ("BuilderFlag.STRIP_PLAN",),
    "targets": ("Module.ComputeCapability", "IBuilderConfig.set_compute_capability"),
    "runtime_cache": ("Module.IRuntimeCache", "IRuntimeConfig.set_runtime_cache"),
}
"""What exists in the bindings where a capability is there, and does not where it is not."""

PRESENT: dict[str, str] = {
    "explicit_batch": "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "timing_cache": "IBuilderConfig.create_timing_cache",
}
"""What must exist where a capability is there; elsewhere it may exist and do nothing.

TensorRT 10 has the flag and ignores it; TensorRT-RTX has the function and keeps nothing.
"""

BACKENDS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


def row(release: Release) -> Capabilities:
    version = genuine(release)["version"]
    return capabilities("tensorrt" if release.wheel else "tensorrt-rtx", version)


@pytest.mark.parametrize("release", parameters())
@pytest.mark.parametrize("name", EVIDENCE)
def test_a_capability_is_there_where_its_members_are(release: Release, name: str) -> None:
    claimed = {field.name: getattr(row(release), field.name) for field in fields(Capabilities)}
    for key in EVIDENCE[name]:
        assert claimed[name] == (find(genuine(release), key) is not None), key


@pytest.mark.parametrize("release", parameters())
def test_what_a_capability_needs_exists(release: Release) -> None:
    claimed = row(release)
    for name, key in PRESENT.items():
        if getattr(claimed, name):
            assert find(genuine(release), key) is not None, key


def test_every_capability_has_evidence() -> None:
    named = {field.name for field in fields(Capabilities)} - {"generation"}
    assert named == set(EVIDENCE) | set(PRESENT)


def test_every_generation_with_published_bindings_is_tested() -> None:
    known = {each.generation for each in (*TABLE.values(), RTX)}
    assert known - {"9"} == {"8", "10", "11", "rtx"}


@pytest.mark.parametrize("release", parameters("10"))
def test_tensorrt_10_says_that_it_ignores_the_flag_for_explicit_batches(
    release: Release,
) -> None:
    said = run(release, "import tensorrt as t; print(t.NetworkDefinitionCreationFlag.__doc__)")
    assert "Ignored because networks are always" in said


@pytest.mark.parametrize("release", parameters())
def test_load_finds_what_is_installed_and_names_it(release: Release) -> None:
    backend = BACKENDS[release.module]
    said = run(
        release,
        "from quantlab.engines.trt.library import load\n"
        f"found = load({backend!r})\n"
        "print(found, found.capabilities.generation, found.version, sep='|')",
    )
    title = "TensorRT" if release.wheel else "TensorRT-RTX"
    version = genuine(release)["version"]
    assert said.strip() == f"{title} {version}|{release.generation}|{version}"


BY_NAME: dict[str, set[str]] = {
    "DataType": set(implicit.DTYPES) | implicit.FLOATS | set(execution.DTYPES),
    "HardwareCompatibilityLevel": {
        name.upper() for name in get_args(get_type_hints(Settings)["hardware_compatible"])
    },
    "MemoryPoolType": {name.upper() for name in get_args(Pool)},
    "Severity": set(LEVELS),
    "TensorIOMode": {"INPUT", "OUTPUT"},
    "TensorLocation": {"HOST"},
}
"""Members that quantlab knows by a string, such as a config key, and so mypy does not see."""

LATER = {
    "8.6.1": {
        "DataType.INT64",
        "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        "MemoryPoolType.TACTIC_SHARED_MEMORY",
    },
    "10.0.1": {"HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"},
}
"""Which of them a release does not have."""

BY_NAME_RTX: dict[str, set[str]] = {
    "ComputeCapability": {name.upper() for name in DEFAULT} | SPECIAL,
    "EngineInvalidityDiagnostics": set(runner.INVALID),
}
"""The same, of TensorRT-RTX alone."""


@pytest.mark.parametrize("release", parameters())
def test_what_quantlab_knows_by_its_name_exists(release: Release) -> None:
    names = BY_NAME if release.wheel else BY_NAME | BY_NAME_RTX
    keys = {f"{owner}.{name}" for owner, of in names.items() for name in of}
    missing = {key for key in keys if find(genuine(release), key) is None}
    assert missing == LATER.get(release.name, set())
