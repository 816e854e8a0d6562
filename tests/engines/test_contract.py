"""Every engine that is usable here keeps the contract of quantlab.engines.base."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from quantlab.engines.base import Array, Engine, Runner
from quantlab.errors import EngineError
from quantlab.files import sha256
from quantlab.records import Precision
from tests.engines.models_for_engines import (
    expected,
    float_net,
    half_net,
    images,
    odd_inputs,
    odd_net,
    quantized_net,
    saved,
    single_node,
)

Open = Callable[[Engine, onnx.ModelProto, Precision], Runner]


def assert_close(found: Array, wanted: Array, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Compare; by default as sums of some 100 products in another order may differ."""
    # float64 holds every value that these models give
    np.testing.assert_allclose(
        found.astype(np.float64), wanted.astype(np.float64), rtol=rtol, atol=atol
    )


def test_fp32_equals_the_reference_at_every_batch_size(engine: Engine, opened: Open) -> None:
    model = float_net()
    runner = opened(engine, model, "fp32")
    for batch in (1, 7, 7, 7, 1, 2, 2, 7):  # first sight, repetition and return of a shape
        inputs = images(batch, seed=batch)
        found = runner.run(inputs)
        assert list(found) == ["y"]
        assert_close(found["y"], expected(model, inputs)["y"])
        assert found["y"].dtype == np.float32


def test_many_shapes_in_turn_stay_right_and_repeat_exactly(engine: Engine, opened: Open) -> None:
    runner = opened(engine, odd_net(), "fp32")
    first = {batch: runner.run(odd_inputs(batch))["sum"] for batch in range(1, 13)}
    for batch in (12, 1, 9, 2, 2, 8, 10):
        inputs = odd_inputs(batch)
        found = runner.run(inputs)["sum"]
        np.testing.assert_array_equal(found, first[batch])
        assert_close(found, expected(odd_net(), inputs)["sum"])


@pytest.mark.parametrize("batch", [1, 5])
def test_integer_scalar_and_unused_inputs_and_aliased_outputs(
    engine: Engine, opened: Open, batch: int
) -> None:
    inputs = odd_inputs(batch)
    wanted = expected(odd_net(), inputs)
    runner = opened(engine, odd_net(), "fp32")
    for _ in range(3):
        found = runner.run(inputs)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert_close(found[name], value)
            assert found[name].dtype == value.dtype
            assert found[name].shape == value.shape


def test_the_order_of_the_inputs_does_not_matter(engine: Engine, opened: Open) -> None:
    runner = opened(engine, odd_net(), "fp32")
    inputs = odd_inputs(2)
    backwards = dict(reversed(inputs.items()))
    np.testing.assert_array_equal(runner.run(inputs)["sum"], runner.run(backwards)["sum"])


def test_outputs_belong_to_the_caller(engine: Engine, opened: Open) -> None:
    runner = opened(engine, odd_net(), "fp32")
    inputs = odd_inputs(3)
    kept = [runner.run(inputs) for _ in range(3)]
    before = [{name: value.copy() for name, value in outputs.items()} for outputs in kept]
    inputs["x"][:] = 1
    inputs["ids"][:] = 0
    runner.run(inputs)
    for outputs, copies in zip(kept, before, strict=True):
        for name, value in outputs.items():
            np.testing.assert_array_equal(value, copies[name])
            assert not any(np.shares_memory(value, array) for array in inputs.values())
    kept[0]["sum"][:] = 0  # writable
    np.testing.assert_array_equal(kept[1]["sum"], before[1]["sum"])


def test_strided_and_read_only_inputs_run(engine: Engine, opened: Open) -> None:
    runner = opened(engine, float_net(), "fp32")
    x = images(4)["x"]
    wide = np.zeros((8, 3, 8, 8), np.float32)
    wide[::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    straight = runner.run({"x": x})["y"]
    assert_close(runner.run({"x": wide[::2]})["y"], straight)
    assert_close(runner.run({"x": frozen})["y"], straight)


def test_fp16_answers_within_its_rounding(engine: Engine, opened: Open) -> None:
    inputs = images(3)
    found = opened(engine, half_net(), "fp16").run(inputs)["y"]
    # FP16 rounds to 2**-11; three layers of products leave a few steps of that
    assert_close(found, expected(float_net(), inputs)["y"], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("zero", [np.int8(0), np.uint8(0)], ids=["int8", "uint8"])
def test_int8_answers_within_a_few_steps(
    engine: Engine, opened: Open, zero: np.int8 | np.uint8
) -> None:
    model = quantized_net(zero)
    inputs = images(4)
    runner = opened(engine, model, "int8")
    for _ in range(3):
        found = runner.run(inputs)["y"]
        # a tie that rounds the other way moves one element by a step of 4/127
        assert_close(found, expected(model, inputs)["y"], rtol=0, atol=4 / 127)


def test_build_records_whole_files_and_nothing_else(engine: Engine, root: Path) -> None:
    build = engine.build(saved(float_net(), root), "fp32", root / "engines")
    assert (build.backend, build.precision) == (engine.name, "fp32")
    assert build.path in build.files
    assert {root / name for name in build.files} == set((root / "engines").iterdir())
    assert all(sha256(root / name) == digest for name, digest in build.files.items())
    assert build.size_bytes == sum((root / name).stat().st_size for name in build.files)
    assert build.build_seconds > 0


def test_an_engine_moves_with_its_run_folder(engine: Engine, root: Path) -> None:
    build = engine.build(saved(float_net(), root), "fp32", root / "engines")
    moved = root.with_name(f"{root.name}-moved")
    root.rename(moved)
    with engine.open(build, moved) as runner:
        assert_close(runner.run(images(1))["y"], expected(float_net(), images(1))["y"])


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_harmed_file_is_named_before_the_backend_sees_it(
    engine: Engine, root: Path, harm: str
) -> None:
    build = engine.build(saved(quantized_net(np.int8(0)), root), "int8", root / "engines")
    for name in build.files:
        path = root / name
        whole = path.read_bytes()
        middle = len(whole) // 2
        changed = {
            "flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "truncate": whole[:middle],
            "empty": b"",
        }
        path.unlink()
        if harm != "remove":
            path.write_bytes(changed[harm])
        says = "cannot read" if harm == "remove" else "changed since it was built"
        with pytest.raises(EngineError, match=rf"{says}|{says}.*{path.name}") as caught:
            engine.open(build, root).__enter__()
        assert path.name in str(caught.value)
        path.write_bytes(whole)


def test_a_record_may_not_point_elsewhere(engine: Engine, root: Path) -> None:
    build = engine.build(saved(float_net(), root), "fp32", root / "engines")
    outside = root.parent / "outside.onnx"
    outside.write_bytes(b"")
    strange = replace(build, path="../outside.onnx", files={"../outside.onnx": sha256(outside)})
    with pytest.raises(EngineError, match=r"outside\.onnx' lies outside the run folder"):
        engine.open(strange, root).__enter__()
    with pytest.raises(EngineError, match=r"no recorded SHA-256"):
        engine.open(replace(build, files={}), root).__enter__()
    with pytest.raises(EngineError, match=r"was built by 'other'"):
        engine.open(replace(build, backend="other"), root).__enter__()


def bad_inputs() -> dict[str, tuple[dict[str, Any], str]]:
    x = images(2)["x"]
    return {
        "none": ({}, r"input 'x' is missing; the engine takes x float32\["),
        "unknown": ({"x": x, "z": x}, r"no input 'z'; it takes x float32\["),
        "renamed": ({"X": x}, r"no input 'X'"),
        "double": ({"x": x.astype(np.float64)}, r"expected x float32.*got float64\[2, 3, 8, 8\]"),
        "half": ({"x": x.astype(np.float16)}, r"got float16"),
        "integers": ({"x": x.astype(np.int64)}, r"got int64"),
        "big-endian": ({"x": x.astype(">f4")}, r"got >f4"),
        "rank": ({"x": x[0]}, r"got float32\[3, 8, 8\]"),
        "channels": ({"x": x[:, :2]}, r"got float32\[2, 2, 8, 8\]"),
        "empty": ({"x": x[:0]}, r"'x' is empty: its shape is \[0, 3, 8, 8\]"),
        "scalar": ({"x": np.float32(1)}, r"got float32\[\]"),
        "list": ({"x": x.tolist()}, r"expected a NumPy array.*got list"),
        "nothing": ({"x": None}, r"got NoneType"),
        "text": ({"x": np.array(["a"])}, r"got <U1"),
        "object": ({"x": np.array([None])}, r"got object"),
    }


@pytest.mark.parametrize("case", bad_inputs())
def test_inputs_that_do_not_fit_are_named(engine: Engine, opened: Open, case: str) -> None:
    inputs, says = bad_inputs()[case]
    runner = opened(engine, float_net(), "fp32")
    with pytest.raises(EngineError, match=says):
        runner.run(inputs)
    assert runner.run(images(1))["y"].shape == (1, 5)  # and the runner still works


def test_a_failure_inside_the_backend_is_an_engine_error(engine: Engine, opened: Open) -> None:
    runner = opened(engine, odd_net(), "fp32")
    inputs = odd_inputs(3)
    inputs["ids"] = np.arange(2)  # 3 rows of x cannot be added to 2 of the table
    for _ in range(2):
        with pytest.raises(EngineError, match="could not run"):
            runner.run(inputs)
    assert runner.run(odd_inputs(3))["sum"].shape == (3, 4)


def bad_models() -> dict[str, bytes | None]:
    whole = float_net().SerializeToString()
    return {
        "missing": None,
        "empty": b"",
        "text": b"not a model",
        "truncated": whole[: len(whole) // 2],
        "unknown operator": single_node("Frobnicate").SerializeToString(),
        "unknown domain": single_node("Frobnicate", domain="unknown").SerializeToString(),
        "strings": single_node("Identity", TensorProto.STRING).SerializeToString(),
        "bfloat16": single_node("Identity", TensorProto.BFLOAT16).SerializeToString(),
    }


@pytest.mark.parametrize("case", bad_models())
def test_a_model_that_cannot_be_built_is_an_engine_error(
    engine: Engine, root: Path, case: str
) -> None:
    path = root / "bad.onnx"
    content = bad_models()[case]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        engine.build(path, "fp32", root / "engines")
    if case.startswith("unknown"):
        assert "Frobnicate" in str(caught.value)
    elif case in ("strings", "bfloat16"):
        assert "'x'" in str(caught.value)
    else:
        assert "bad.onnx" in str(caught.value)
    assert list((root / "engines").iterdir()) == []


def test_external_data_travels_with_the_engine(engine: Engine, root: Path) -> None:
    path = root / "prepared.onnx"
    onnx.save(
        float_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    build = engine.build(path, "fp32", root / "engines")
    path.unlink()
    (root / "weights.bin").unlink()
    assert len(build.files) == 2
    with engine.open(build, root) as runner:
        assert_close(runner.run(images(2))["y"], expected(float_net(), images(2))["y"])


def test_missing_external_data_is_named(engine: Engine, root: Path) -> None:
    path = root / "prepared.onnx"
    onnx.save(
        float_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (root / "weights.bin").unlink()
    with pytest.raises(EngineError, match=r"weights\.bin"):
        engine.build(path, "fp32", root / "engines")


def test_describe_tells_what_ran(engine: Engine, opened: Open) -> None:
    runner = opened(engine, float_net(), "fp32")
    with pytest.raises(EngineError, match="needs a batch"):
        runner.describe()
    before = runner.run(images(2))["y"]
    info = runner.describe()
    assert (info.precision, info.ran, info.notes) == ("fp32", "f32", ())
    assert [layer.name for layer in info.layers if layer.weighted][:2] == ["conv1", "conv2"]
    assert sum(layer.weighted for layer in info.layers) == 3
    assert info.threads >= 1
    assert info.backend.startswith(engine.name.partition("reference")[0] or "onnx.reference")
    np.testing.assert_array_equal(runner.run(images(2))["y"], before)


def test_the_backend_writes_nothing_to_the_terminal(
    engine: Engine, opened: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = opened(engine, odd_net(), "fp32")
    inputs = odd_inputs(3)
    runner.run(inputs)
    runner.describe()
    inputs["ids"] = np.arange(2)
    with pytest.raises(EngineError):
        runner.run(inputs)
    assert capfd.readouterr() == ("", "")
