"""Implicit quantization: whose scales a build got is proved, never assumed.

Over a stand-in for the TensorRTs that have it; their genuine classes are in tests/trt_bindings.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab import cache
from quantlab.engines.base import Array, BuildContext, ShapeRange
from quantlab.engines.tensorrt import TensorRT
from quantlab.engines.trt import builder, implicit, log, monitor, plan
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.options import Order, Settings
from quantlab.errors import CacheError, CalibrationError, DataError, EngineError
from quantlab.files import sha256
from tests.engines.trt.nets import small_net
from tests.engines.trt.stand_in_builder import (
    BuilderFlag,
    CreationFlag,
    StandIn,
    as_library,
    batches_of,
    host_device,
    seen,
    stand_in,
)
from tests.models import Net, write

SCALES = {"x": 0.5, "conv1_out": 0.25, "relu1_out": 0.125, "conv2_out": 1.0}
SHAPES = {"x": ShapeRange((1, 16, 8, 8), (4, 16, 8, 8), (8, 16, 8, 8))}


def ordered(
    folder: Path,
    library: Library,
    *,
    scales: dict[str, float] | None = None,
    algorithm: cache.Algorithm = "EntropyCalibration2",
    batches: list[dict[str, Array]] | None = None,
    model: onnx.ModelProto | None = None,
) -> Order:
    """Return an order for INT8 with the cache of an older TensorRT beside the model."""
    stored = cache.Cache(cache.Header("8.4.3", algorithm), SCALES if scales is None else scales)
    cache.write(folder / "calibration.cache", stored)
    return Order(
        library,
        Settings(
            quantization="implicit",
            calibrate_with="quantlab" if batches is None else "tensorrt",
        ),
        "int8",
        write(model or small_net(batch="N"), folder / "prepared.onnx"),
        BuildContext(
            cache=folder / "calibration.cache",
            shapes=SHAPES,
            batches=None if batches is None else batches_of(batches),
        ),
    )


def built(order: Order) -> builder.Made:
    return builder.build_on(order, monitor.Steps(lambda _: None), host_device())


def full(value: float, size: int = 4) -> dict[str, Array]:
    return {"x": np.full((size, 16, 8, 8), value, np.float32)}


@pytest.mark.parametrize("version", ["8.6.1", "9.2.0", "10.16.1.11"])
@pytest.mark.parametrize("algorithm", cache.ALGORITHMS)
def test_an_old_cache_is_served_under_the_header_of_the_very_tensorrt(
    tmp_path: Path, version: str, algorithm: cache.Algorithm
) -> None:
    library = stand_in(version)
    made = built(ordered(tmp_path, library, algorithm=algorithm))
    config, network = seen(library)
    expected = implicit.MINMAX if algorithm == "MinMaxCalibration" else implicit.ENTROPY
    assert config.int8_calibrator.suffix == expected
    assert {BuilderFlag.INT8, BuilderFlag.FP16} <= config.flags
    assert not network.flags & 1 << CreationFlag.STRONGLY_TYPED
    assert config.calibration_profile == config.profiles[0]
    assert (made.notes, made.calibration) == ((), b"")


@given(st.dictionaries(st.sampled_from(["a", "b:0", "c d"]), st.floats(0, 9, width=32), min_size=1))
def test_only_the_header_is_rewritten(scales: dict[str, float]) -> None:
    stored = cache.Cache(cache.Header("8.4.3", "LegacyCalibration"), scales)
    found = cache.parse(implicit.served(stored, "10.3.0.26"), "")
    assert found == cache.Cache(cache.Header("10.3.0", "EntropyCalibration2"), scales)


def test_a_refused_cache_fails_with_what_the_log_says(tmp_path: Path) -> None:
    with pytest.raises(CacheError) as caught:
        built(ordered(tmp_path, as_library(StandIn("10.3.0", refuses=True))))
    text = str(caught.value)
    assert text.startswith("TensorRT 10.3.0 refused the calibration cache, headed TRT-100300-Entr")
    assert "it asked for a batch" in text
    assert "Calibration table does not match calibrator algorithm type" in text


def test_a_cache_that_is_never_read_is_an_error() -> None:
    source = implicit.Served(b"TRT-8601-EntropyCalibration2\n")
    with pytest.raises(CacheError, match="TensorRT 8 never read the calibration cache"):
        source.check("TensorRT 8", log.Log())
    source.read()
    assert "does not say that it used it" in source.check("TensorRT 8", log.Log())[0]


@pytest.mark.parametrize("tensor", ["conv1_out", "relu1_out", "conv2_out"])
def test_a_tensor_without_a_scale_is_named(tmp_path: Path, tensor: str) -> None:
    scales = {name: scale for name, scale in SCALES.items() if name != tensor}
    with pytest.raises(CacheError, match=rf"1 of .* '{tensor}'.*tensors: all"):
        built(ordered(tmp_path, stand_in("8.6.1"), scales=scales))


def test_the_cache_of_another_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="the cache of another model"):
        built(ordered(tmp_path, stand_in("8.6.1"), scales={"other": 1.0}))


def test_tensors_of_the_parsers_own_are_noted(tmp_path: Path) -> None:
    net = Net()
    model = net.finish(net.gemm(net.input(shape=(4, 16)), (16, 16), name="classifier"))
    order = ordered(
        tmp_path, stand_in("8.6.1"), model=model, scales={"x": 1.0, "classifier_out": 1.0}
    )
    own, missing = built(order).notes
    name = "'(Unnamed Layer* 0) [Shuffle]_output'"
    assert own.endswith(
        f"made 1 tensors that the model does not have, so the cache has no scale for them: {name}"
    )
    assert missing.startswith("TensorRT found no scale for 1 tensors")
    assert missing.endswith(name)


def test_tensorrt_calibrates_on_every_full_batch(tmp_path: Path) -> None:
    library = stand_in("10.3.0")
    given_batches = [full(1), full(2), full(3, size=1), full(4)]
    order = ordered(tmp_path, library, batches=given_batches, algorithm="MinMaxCalibration")
    made = built(order)
    config, _ = seen(library)
    assert config.calibration_profile == {"x": ((4, 16, 8, 8),) * 3}
    assert made.notes == (
        "TensorRT 10.3.0 calibrated by itself on 3 batches",
        "1 batches were left out of TensorRT's calibration, because they are not full",
    )
    found = cache.parse(made.calibration, "")
    assert found.header == cache.Header("10.3.0", "MinMaxCalibration")
    assert set(found.scales) == set(SCALES) - {"x"}


def test_a_calibration_that_ends_early_is_an_error(tmp_path: Path) -> None:
    order = ordered(
        tmp_path, as_library(StandIn("10.3.0", stops_after=1)), batches=[full(1), full(2)]
    )
    with pytest.raises(CalibrationError, match=r"took 1 batches and asked for no more.*batch 0"):
        built(order)


def test_without_a_full_batch_the_shape_is_said(tmp_path: Path) -> None:
    model = small_net(batch=4)
    order = ordered(tmp_path, stand_in("10.3.0"), batches=[full(1, size=3)], model=model)
    with pytest.raises(EngineError, match=r"'x'.*\[4, 16, 8, 8\].*are \[3, 16, 8, 8\]"):
        built(order)
    with pytest.raises(CalibrationError, match="no calibration samples"):
        built(ordered(tmp_path, stand_in("10.3.0"), batches=[]))
    with pytest.raises(CalibrationError, match="lack the input 'x'"):
        built(ordered(tmp_path, stand_in("10.3.0"), batches=[{}]))


def test_what_a_sample_raises_comes_out_of_the_build(tmp_path: Path) -> None:
    order = ordered(tmp_path, stand_in("10.3.0"), batches=[full(1)])
    passes = 0

    def broken() -> Iterator[dict[str, Array]]:
        nonlocal passes
        passes += 1
        yield full(1)
        if passes > 1:  # the first pass is for the shapes
            raise DataError("sample 5 cannot be read")

    context = BuildContext(cache=order.context.cache, shapes=SHAPES, batches=broken)
    failing = Order(order.library, order.settings, "int8", order.model, context)
    with pytest.raises(DataError, match="sample 5 cannot be read"):
        built(failing)


def test_addresses_come_in_the_order_asked_and_hold_what_tensorrt_reads() -> None:
    device = host_device()
    inputs = {"image": ((2, 3), "HALF"), "ids": ((2,), "INT32")}
    images = np.arange(12, dtype=np.float64).reshape(3, 4).T[:2, :3]  # not contiguous
    batch: dict[str, Array] = {"image": images, "ids": np.array([7, 9])}
    source = implicit.Fed(batches_of([batch, batch]), inputs, implicit.DeviceMemory(device))
    first, again = source.batch(["ids", "image"]), source.batch(["image", "ids"])
    assert first is not None
    assert again == first[::-1]
    ids, image = device.cuda.memory
    np.testing.assert_array_equal(ids.view(np.int32), [7, 9])
    np.testing.assert_array_equal(image.view(np.float32), images.ravel())
    assert source.batch(["ids"]) is None


def test_an_integer_that_the_network_cannot_hold_is_refused() -> None:
    batch: dict[str, Array] = {"ids": np.array([1 << 40])}
    memory = implicit.DeviceMemory(host_device())
    source = implicit.Fed(batches_of([batch]), {"ids": ((1,), "INT32")}, memory)
    assert source.batch(["ids"]) is None
    with pytest.raises(CalibrationError, match="'ids': a calibration sample exceeds int32"):
        source.check("TensorRT", log.Log())


def test_an_input_that_nothing_is_known_of_is_named(tmp_path: Path) -> None:
    memory = implicit.DeviceMemory(host_device())
    source = implicit.Fed(batches_of([full(1)]), {"x": ((4, 16, 8, 8), "FLOAT")}, memory)
    assert source.batch(["y"]) is None
    with pytest.raises(EngineError, match="asked for a batch of 'y', which is no input"):
        source.check("TensorRT", log.Log())
    net = Net()
    model = net.finish(net.relu(net.input(shape=(4, 3), dtype=onnx.TensorProto.BFLOAT16)))
    batch: dict[str, Array] = {"x": np.zeros((4, 3), np.float32)}
    with pytest.raises(EngineError, match="'x': TensorRT cannot calibrate on BF16"):
        built(ordered(tmp_path, stand_in("10.3.0"), batches=[batch], model=model))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    order = ordered(tmp_path, stand_in("10.3.0"))
    bare = Order(order.library, order.settings, "int8", order.model, BuildContext(shapes=SHAPES))
    with pytest.raises(EngineError, match="needs a calibration cache, and there is none"):
        built(bare)
    fed = ordered(tmp_path, stand_in("10.3.0"), batches=[full(1)])
    unfed = Order(order.library, fed.settings, "int8", order.model, order.context)
    with pytest.raises(EngineError, match="needs the calibration samples"):
        built(unfed)


def test_the_engine_keeps_tensorrts_own_cache_beside_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = stand_in("8.6.1")
    monkeypatch.setitem(sys.modules, "tensorrt", library.module)
    monkeypatch.setattr(builder, "Device", lambda _: host_device())
    order = ordered(tmp_path, library, batches=[full(1)])
    folder = tmp_path / "engines"
    folder.mkdir()
    engine = TensorRT(quantization="implicit", calibrate_with="tensorrt")
    assert engine.recipe.around == "fp32"  # a flag allows FP16 on 8.6
    made = engine.build(order.model, "int8", folder, order.context)
    assert set(made.files) == {
        f"engines/int8.{name}" for name in ("plan", "plan.json", "calibration.cache")
    }
    found = cache.read(folder / "int8.calibration.cache")
    assert found.header == cache.Header("8.6.1", "EntropyCalibration2")
    assert (folder / "timing.cache").read_bytes() == b"times of 8.6.1"
    manifest = plan.read(folder / "int8.plan")
    assert (manifest.gpu, manifest.compute_capability) == ("a GPU", (8, 6))
    assert (manifest.quantization, manifest.options.strongly_typed) == ("implicit", False)
    assert manifest.cache_sha256 == sha256(tmp_path / "calibration.cache")
    assert made.device == "a GPU"
    assert "calibrated by itself on 1 batches" in made.notes[0]
