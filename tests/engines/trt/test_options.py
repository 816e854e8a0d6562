"""What a builder is told on weakly and strongly typed TensorRTs, and what is refused before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantlab import cache
from quantlab.engines.base import BuildContext
from quantlab.engines.trt import builder, log, monitor, options
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.options import Order, Settings, check, flags
from quantlab.errors import ConfigError, EngineError
from quantlab.records import PRECISIONS, Precision
from tests.engines.trt.conftest import Ordered
from tests.engines.trt.nets import small_net
from tests.engines.trt.stand_in_builder import (
    BuilderFlag,
    CreationFlag,
    DataType,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    ProfilingVerbosity,
    host_device,
    seen,
    stand_in,
)

IMPLICIT = Settings(quantization="implicit")


def told(order: Order) -> set[str]:
    enum: Any = BuilderFlag
    return {flag.name for flag in enum if flag in flags(enum, order)}


def built(order: Order) -> builder.Made:
    return builder.build_on(order, monitor.Steps(lambda _: None), host_device())


@pytest.mark.parametrize(
    ("version", "settings", "expected"),
    [
        ("8.6.1", Settings(), [set(), {"FP16"}, {"INT8", "FP16"}]),
        ("8.6.1", Settings(around="fp32"), [set(), {"FP16"}, {"INT8"}]),
        ("8.6.1", IMPLICIT, [set(), {"FP16"}, {"INT8", "FP16"}]),
        ("10.3.0", IMPLICIT, [set(), set(), {"INT8", "FP16"}]),
        ("9.1.0", Settings(), [set(), set(), set()]),
        ("10.3.0", Settings(), [set(), set(), set()]),
        ("11.4.0", Settings(), [set(), set(), set()]),
    ],
)
def test_precision_flags_are_for_weakly_typed_networks(
    ordered: Ordered, version: str, settings: Settings, expected: list[set[str]]
) -> None:
    for precision, wanted in zip(PRECISIONS, expected, strict=True):
        order = ordered(small_net(), settings, precision, library=stand_in(version))
        assert told(order) == wanted
        pinned = replace(order, settings=replace(settings, pins={"conv1": "fp32"}))
        weak = not order.strong and precision != "fp32"
        assert told(pinned) == wanted | ({"OBEY_PRECISION_CONSTRAINTS"} if weak else set())


def test_a_pin_to_fp16_needs_the_flag(ordered: Ordered) -> None:
    settings = Settings(quantization="implicit", around="fp32", pins={"conv1": "fp16"})
    order = ordered(small_net(), settings, "int8", library=stand_in("10.3.0"))
    assert told(order) == {"INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"}


@pytest.mark.parametrize("version", ["8.6.1", "9.1.0", "10.3.0", "11.4.0"])
def test_networks_are_strongly_typed_where_they_can_be(ordered: Ordered, version: str) -> None:
    library = stand_in(version)
    built(ordered(small_net(), None, "fp16", library=library))
    config, network = seen(library)
    assert bool(network.flags & 1 << CreationFlag.STRONGLY_TYPED) == (version != "8.6.1")
    assert bool(network.flags & 1 << CreationFlag.EXPLICIT_BATCH) == (version in ("8.6.1", "9.1.0"))
    assert hasattr(config, "progress_monitor") == (version != "8.6.1")
    assert vars(config)["profiling_verbosity"] is ProfilingVerbosity["DETAILED"]


def test_what_the_config_says_reaches_the_builder(ordered: Ordered) -> None:
    library = stand_in("10.3.0")
    settings = Settings(
        tf32=True,
        memory={"workspace": 1 << 30, "tactic_dram": 1 << 20},
        optimization_level=5,
        version_compatible=True,
        hardware_compatible="ampere_plus",
        strip_weights=True,
    )
    made = built(ordered(small_net(), settings, library=library))
    config, _ = seen(library)
    assert {f.name for f in config.flags} == {"TF32", "VERSION_COMPATIBLE", "STRIP_PLAN"}
    assert config.pools == {
        MemoryPoolType["WORKSPACE"]: 1 << 30,
        MemoryPoolType["TACTIC_DRAM"]: 1 << 20,
    }
    found = vars(config)
    assert found["builder_optimization_level"] == 5
    assert found["hardware_compatibility_level"] is HardwareCompatibilityLevel["AMPERE_PLUS"]
    assert found["plugins_to_serialize"] == ["libown.so"]
    assert (made.gpu, made.compute_capability) == ("a GPU", (8, 6))


def test_tf32_is_off_unless_asked_for(ordered: Ordered) -> None:
    library = stand_in("8.6.1")
    built(ordered(small_net(), library=library))
    assert seen(library)[0].flags == set()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_pinned_layers_get_their_types_one_by_one(
    ordered: Ordered, tmp_path: Path, precision: Precision
) -> None:
    library = stand_in("8.6.1")
    stored = cache.Cache(
        cache.Header("8.6.1", "EntropyCalibration2"),
        dict.fromkeys(("x", "conv1_out", "relu1_out", "conv2_out"), 1.0),
    )
    cache.write(tmp_path / "c", stored)
    pins = {"conv*": "fp16", "conv2": "fp32", "gone": "fp32"}
    settings = Settings(quantization="implicit", pins=pins)  # type: ignore[arg-type]  # literals
    context = BuildContext(cache=tmp_path / "c")
    made = built(ordered(small_net(), settings, precision, context=context, library=library))
    types = {layer.name: layer.precision for layer in seen(library)[1].layers}
    half, single = DataType["HALF"], DataType["FLOAT"]
    assert types == {"conv1": half, "relu1": None, "conv2": single}
    assert [layer.types for layer in seen(library)[1].layers] == [{0: half}, {}, {0: single}]
    assert made.notes == ("pins: TensorRT made no layer of the nodes 'gone'",)


def test_a_strongly_typed_network_has_its_pins_already(ordered: Ordered) -> None:
    library = stand_in("10.3.0")
    built(ordered(small_net(), Settings(pins={"conv1": "fp32"}), "fp16", library=library))
    assert {layer.precision for layer in seen(library)[1].layers} == {None}


@pytest.mark.parametrize(
    ("settings", "version", "message"),
    [
        (IMPLICIT, "11.4.0", r"needs TensorRT 8\.6 to 10, and this is TensorRT 11\.4\.0"),
        (Settings(strip_weights=True), "8.6.1", r"needs TensorRT 10 or later.*8\.6\.1"),
        (Settings(calibrate_with="tensorrt"), "10.3.0", "is for 'quantization: implicit'"),
        (
            Settings(memory={"tactic_shared_memory": 1}),
            "8.6.1",
            r"'memory: tactic_shared_memory': TensorRT 8\.6\.1 has no such.*workspace, tactic_dram",
        ),
        (
            Settings(hardware_compatible="same_compute_capability"),
            "8.6.1",
            r"'hardware_compatible: same_compute_capability'.*it has none, ampere_plus",
        ),
    ],
)
def test_what_a_tensorrt_has_not_is_refused_with_what_has(
    ordered: Ordered, settings: Settings, version: str, message: str
) -> None:
    library = stand_in(version)
    with pytest.raises(EngineError, match=message):
        builder.build(ordered(small_net(), settings, library=library))


def test_tensorrt_rtx_refuses_targets_and_calibrators_that_it_has_not(rtx: Library) -> None:
    check(Settings(targets=("sm75", "sm121")), rtx)
    with pytest.raises(ConfigError, match="target 'sm90'"):
        check(Settings(targets=("sm90",)), rtx)
    with pytest.raises(EngineError, match="reads no calibration cache"):
        check(IMPLICIT, rtx)


def test_the_timing_cache_goes_from_build_to_build(ordered: Ordered, tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    settings = Settings(timing_cache=path)
    library = stand_in("10.3.0")
    assert built(ordered(small_net(), settings, library=library)).notes == ()
    assert path.read_bytes() == b"times of 10.3.0"
    assert built(ordered(small_net(), settings, library=library)).notes == ()
    config, _ = seen(library)
    assert config.timing is not None
    assert config.timing.data == b"times of 10.3.0"
    (other,) = built(ordered(small_net(), settings, library=stand_in("11.4.0"))).notes
    assert other == f"timing cache {path} is of another TensorRT or GPU and was begun anew"
    assert path.read_bytes() == b"times of 11.4.0"
    path.write_bytes(b"garbage")
    assert "begun anew" in built(ordered(small_net(), settings, library=library)).notes[0]


def test_a_timing_cache_that_cannot_be_read_is_said(ordered: Ordered, tmp_path: Path) -> None:
    settings = Settings(timing_cache=tmp_path)
    with pytest.raises(EngineError, match="cannot read"):
        built(ordered(small_net(), settings, library=stand_in("10.3.0")))


def test_tensorrt_rtx_is_told_tf32_and_verbosity_for_real(rtx: Library) -> None:
    logger = log.make(rtx.module, log.Log())
    made = rtx.module.Builder(logger)
    network = made.create_network(0)
    parser = rtx.module.OnnxParser(network, logger)
    flag = rtx.module.BuilderFlag.TF32
    for tf32 in (False, True):
        config = made.create_builder_config()
        order = Order(rtx, Settings(tf32=tf32), "fp32", Path("model.onnx"), BuildContext())
        options.configure(order, config, parser)
        assert config.get_flag(flag) is tf32  # type: ignore[attr-defined]  # only tests ask
        assert config.profiling_verbosity == rtx.module.ProfilingVerbosity.DETAILED
