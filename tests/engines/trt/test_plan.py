"""A plan is loaded whole and unchanged, where it was built for, or refused in one sentence."""

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.engines.base import ShapeRange
from quantlab.engines.trt.plan import (
    Here,
    Manifest,
    Options,
    Plugin,
    beside,
    facts,
    load,
    read,
    save,
)
from quantlab.errors import EngineError

DATA = bytes(range(256)) * 3
HERE = Here("tensorrt", "10.16.1.11", "NVIDIA A100", (8, 0))


def manifest(**changes: object) -> Manifest:
    made = Manifest(
        quantlab="0.1.0",
        created="2026-05-04T10:20:30+00:00",
        package="tensorrt",
        version="10.16.1.11",
        gpu="NVIDIA A100",
        compute_capability=(8, 0),
        precision="int8",
        quantization="explicit",
        model="int8.onnx",
        model_sha256="5f2b" * 16,
        profiles=({"x": ShapeRange((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))},),
        cache_sha256="9a1c" * 16,
        options=Options(strongly_typed=True),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # names are checked


def saved(folder: Path, **changes: object) -> Path:
    plan = folder / "int8.plan"
    save(plan, DATA, manifest(**changes))
    return plan


def options(**changes: object) -> Options:
    return replace(Options(strongly_typed=True), **changes)  # type: ignore[arg-type]  # as above


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    plan = saved(tmp_path)
    found = load(plan, HERE)
    assert found.data == DATA
    assert found.plugins == ()
    whole = replace(manifest(), sha256=hashlib.sha256(DATA).hexdigest(), size_bytes=len(DATA))
    assert found.manifest == whole == read(plan)


MANIFESTS = st.builds(
    manifest,
    package=st.sampled_from(["tensorrt", "tensorrt-rtx"]),
    version=st.sampled_from(["8.6.1", "10.16.1.11", "1.7.1.116", "8.6.1.post1"]),
    compute_capability=st.none() | st.tuples(st.integers(7, 12), st.integers(0, 9)),
    gpu=st.text(max_size=8),
    targets=st.lists(st.sampled_from(["sm75", "sm86", "sm120"]), unique=True).map(tuple),
    cache_sha256=st.sampled_from(["", "0" * 64]),
    plugins=st.lists(st.builds(Plugin, path=st.text(max_size=9), sha256=st.just("0" * 64))).map(
        tuple
    ),
    options=st.builds(
        Options,
        strongly_typed=st.booleans(),
        optimization_level=st.none() | st.integers(0, 5),
        memory=st.dictionaries(st.text(max_size=5), st.integers(0, 2**50), max_size=2),
        pins=st.dictionaries(st.text(max_size=5), st.sampled_from(["fp32", "fp16"]), max_size=2),
    ),
)


@given(MANIFESTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_every_manifest_comes_back(tmp_path: Path, made: Manifest) -> None:
    plan = tmp_path / "int8.plan"
    assert read_after_save(plan, made) == replace(
        made, sha256=hashlib.sha256(DATA).hexdigest(), size_bytes=len(DATA)
    )
    assert all(isinstance(text, str) and text for text in facts(made).values())


def read_after_save(plan: Path, made: Manifest) -> Manifest:
    save(plan, memoryview(DATA), made)
    return read(plan)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_changed_byte_is_found(tmp_path: Path, place: int, change: int) -> None:
    plan = saved(tmp_path)
    data = bytearray(DATA)
    data[place] ^= change
    plan.write_bytes(data)
    with pytest.raises(EngineError, match=r"int8\.plan was changed: expected SHA-256 .* found"):
        load(plan, HERE)


@given(st.integers(0, len(DATA) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_any_cut_is_found(tmp_path: Path, length: int) -> None:
    plan = saved(tmp_path)
    plan.write_bytes(DATA[:length])
    message = rf"int8\.plan was cut short: expected {len(DATA)} bytes .* found {length}; copy it"
    with pytest.raises(EngineError, match=message):
        load(plan, HERE)


def test_a_longer_file_is_refused_unread(tmp_path: Path) -> None:
    plan = saved(tmp_path)
    with plan.open("r+b") as file:  # a sparse terabyte: reading it would not end
        file.truncate(1 << 40)
    with pytest.raises(EngineError, match=rf"expected {len(DATA)} bytes .* found {1 << 40}"):
        load(plan, HERE)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_changed_manifest_is_read_the_same_or_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    plan = saved(tmp_path)
    text = beside(plan).read_bytes()
    place = data.draw(st.integers(0, len(text) - 1))
    beside(plan).write_bytes(text[:place] + data.draw(st.binary(max_size=3)) + text[place + 1 :])
    with suppress(EngineError):
        assert load(plan, HERE).data == DATA


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (
            replace(HERE, package="tensorrt-rtx", version="1.7.1.116"),
            "expected tensorrt 10.16.1.11, which built it, found tensorrt-rtx 1.7.1.116; install",
        ),
        (
            replace(HERE, version="10.16.2.1"),
            r"expected tensorrt 10\.16\.1\.11, which built it, found tensorrt 10\.16\.2\.1;",
        ),
        (
            replace(HERE, gpu="NVIDIA A10", compute_capability=(8, 6)),
            r"expected NVIDIA A100 with .* 8\.0, .* found NVIDIA A10 .*'hardware_compatible:'",
        ),
        (
            replace(HERE, gpu="NVIDIA A30"),
            r"expected NVIDIA A100 .*, found NVIDIA A30 with compute capability 8\.0",
        ),
    ],
)
def test_another_tensorrt_or_gpu_is_refused(tmp_path: Path, here: Here, message: str) -> None:
    plan = saved(tmp_path)
    plan.unlink()  # refused before the plan is looked at
    with pytest.raises(EngineError, match=rf"int8\.plan: {message}"):
        load(plan, here)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.16.1.11", True), ("10.17.0.1", True), ("10.3.0.26", False), ("11.0.0.1", False)],
)
def test_a_version_compatible_plan_runs_on_newer_ones_of_its_major(
    tmp_path: Path, version: str, *, fits: bool
) -> None:
    plan = saved(tmp_path, options=options(version_compatible=True))
    here = replace(HERE, version=version)
    if fits:
        assert load(plan, here).data == DATA
    else:
        with pytest.raises(EngineError, match="version-compatible: a newer one of the same major"):
            load(plan, here)


@pytest.mark.parametrize(
    ("level", "gpu", "capability", "refused"),
    [
        ("same_compute_capability", "NVIDIA A30", (8, 0), ""),
        ("same_compute_capability", "NVIDIA A10", (8, 6), "any GPU with compute capability 8.0"),
        ("ampere_plus", "NVIDIA A10", (8, 6), ""),
        ("ampere_plus", "NVIDIA H100", (9, 0), ""),
        ("ampere_plus", "NVIDIA T4", (7, 5), "a GPU of compute capability 8.0 or later"),
    ],
)
def test_hardware_compatible_plans(
    tmp_path: Path, level: str, gpu: str, capability: tuple[int, int], refused: str
) -> None:
    plan = saved(tmp_path, options=options(hardware_compatible=level))
    here = replace(HERE, gpu=gpu, compute_capability=capability)
    if not refused:
        assert load(plan, here).data == DATA
        return
    with pytest.raises(EngineError, match=f"expected {refused}, .* found {gpu}"):
        load(plan, here)


RTX = {
    "package": "tensorrt-rtx",
    "version": "1.7.1.116",
    "gpu": "",
    "compute_capability": None,
}


@pytest.mark.parametrize(
    ("targets", "gpu", "capability", "message"),
    [
        ((), "NVIDIA RTX 4090", (8, 9), ""),
        (("sm86", "sm89"), "NVIDIA RTX 4090", (8, 9), ""),
        (
            ("sm86",),
            "NVIDIA RTX 4090",
            (8, 9),
            r"built for sm86, .* RTX 4090 .* 8\.9 is not among; build it with --targets sm89",
        ),
        ((), "NVIDIA H100", (9, 0), r"H100 .* 9\.0 .* does not support this GPU .* 8\.6, 8\.9"),
    ],
)
def test_an_rtx_plan_runs_on_its_targets(
    tmp_path: Path, targets: tuple[str, ...], gpu: str, capability: tuple[int, int], message: str
) -> None:
    plan = saved(tmp_path, **RTX, targets=targets)
    here = Here("tensorrt-rtx", "1.7.1.116", gpu, capability)
    if not message:
        assert load(plan, here).data == DATA
        return
    with pytest.raises(EngineError, match=message):
        load(plan, here)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.unlink(), r"expected its manifest int8\.plan\.json beside it, found none"),
        (lambda m: m.write_text("{}"), r"json: not the manifest of a plan: 'quantlab': .*required"),
        (lambda m: m.write_bytes(b"\xff"), "not the manifest of a plan"),
        (lambda m: m.write_bytes(b" " * (1 << 21)), "expected at most 1048576 bytes"),
        (
            lambda m: m.write_text(json.dumps(json.loads(m.read_text()) | {"format": 2})),
            "expected manifest format 1, found 2; load it with the quantlab that wrote it",
        ),
        (
            lambda m: m.write_text(json.dumps(json.loads(m.read_text()) | {"extra": 2})),
            "'extra': Unexpected",
        ),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, change: object, message: str) -> None:
    plan = saved(tmp_path)
    assert callable(change)
    change(beside(plan))
    with pytest.raises(EngineError, match=message):
        load(plan, HERE)


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    plan = saved(tmp_path)
    plan.unlink()
    with pytest.raises(EngineError, match=r"cannot read .*int8\.plan: No such file"):
        load(plan, HERE)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "built" / "libfoo.so"
    path.parent.mkdir()
    path.write_bytes(b"plugin")
    return path


def with_plugin(tmp_path: Path, library: Path) -> Path:
    digest = hashlib.sha256(b"plugin").hexdigest()
    return saved(tmp_path, plugins=(Plugin(path=str(library), sha256=digest),))


def test_a_plugin_is_found_where_it_was_or_beside_the_plan(tmp_path: Path, library: Path) -> None:
    plan = with_plugin(tmp_path, library)
    assert load(plan, HERE).plugins == (library,)
    moved = library.rename(tmp_path / library.name)
    assert load(plan, HERE).plugins == (moved,)


def test_a_changed_or_missing_plugin_is_refused(tmp_path: Path, library: Path) -> None:
    plan = with_plugin(tmp_path, library)
    library.write_bytes(b"plugiN")
    message = (
        r"plugin library .*libfoo\.so is not the one .*int8\.plan was built with: expected SHA"
    )
    with pytest.raises(EngineError, match=message):
        load(plan, HERE)
    library.unlink()
    with pytest.raises(EngineError, match=r"expected plugin library libfoo\.so beside it or at"):
        load(plan, HERE)


def test_facts_say_what_a_reader_asks(tmp_path: Path) -> None:
    del tmp_path
    told = facts(manifest())
    assert told["TensorRT"] == "tensorrt 10.16.1.11"
    assert told["built on"] == "NVIDIA A100 (compute capability 8.0)"
    assert told["TF32"] == "off"
    assert told["profiles"] == "x 1x3x8x8 to 16x3x8x8, best at 4x3x8x8"
    rtx = facts(manifest(**RTX, targets=("sm86", "sm89")))
    assert (rtx["built on"], rtx["targets"]) == ("a machine without a GPU", "sm86, sm89")
