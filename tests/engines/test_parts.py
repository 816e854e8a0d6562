"""The small parts that engines share: layer summaries, input checks, host facts, availability."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines import ENGINES
from quantlab.engines.base import Engine
from quantlab.engines.host import cpu_flags, host, int8_saturates, usable_cores, versions
from quantlab.engines.layers import ran, saturation, short_type, shortfall
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.engines.openvino import OpenVino
from quantlab.engines.ort_session import run, session
from quantlab.engines.signature import fitted
from quantlab.errors import ConfigError, EngineError, EngineUnavailable
from quantlab.records import Layer, TensorSpec
from quantlab.registry import make
from tests.engines.models_for_engines import expected, float_net, images, saved, single_node


def layer(name: str, precision: str, *, weighted: bool = True) -> Layer:
    return Layer(name=name, type="Conv", precision=precision, weighted=weighted)


layers = st.lists(
    st.builds(
        Layer,
        name=st.text("abc", min_size=1),
        type=st.just("Conv"),
        precision=st.sampled_from(["f32", "f16", "bf16", "i8", "u8"]),
        weighted=st.booleans(),
    )
)


@given(layers)
def test_ran_names_each_precision_of_the_weighted_layers_once(drawn: list[Layer]) -> None:
    counted = [one for one in drawn if one.weighted] or drawn
    wanted = {"i8" if one.precision in ("i8", "u8") else one.precision for one in counted}
    assert set(ran(drawn).split(" + ")) == (wanted or {"nothing"})


@given(layers)
def test_int8_has_a_note_unless_all_weighted_layers_are_integer(drawn: list[Layer]) -> None:
    weighted = [one for one in drawn if one.weighted]
    clean = bool(weighted) and all(one.integer for one in weighted)
    assert (shortfall("int8", drawn) == []) == clean


def test_a_note_counts_and_names_what_fell_short() -> None:
    short = [layer("a", "f32"), layer("b", "u8"), layer("c", "bf16"), layer("d", "f32")]
    assert shortfall("int8", short) == [
        "int8: of 4 weighted layers 1 in bf16 and 2 in f32 instead of i8: a, c, d"
    ]
    many = [layer(f"n{i}", "f32") for i in range(10)]
    assert shortfall("fp16", many, reason="of age")[0].endswith(
        "10 in f32 instead of f16 because of age: n0, n1, n2, n3, n4, n5, n6, n7 and 2 more"
    )


@pytest.mark.parametrize(
    ("name", "short"),
    [
        *[("float", "f32"), ("float32", "f32"), ("float16", "f16"), ("double", "f64")],
        *[("bfloat16", "bf16"), ("int8", "i8"), ("uint8", "u8"), ("int64", "i64")],
        *[("bool", "bool"), ("string", "string"), ("", "")],
    ],
)
def test_short_names_of_types(name: str, short: str) -> None:
    assert short_type(name) == short


def test_models_without_products_say_so() -> None:
    assert "no convolution or matrix product" in shortfall("int8", [])[0]


@pytest.mark.parametrize(
    ("architecture", "flags", "sums"),
    [
        ("x86_64", ["avx2"], "saturates"),
        ("x86_64", ["avx2", "avx512f"], "saturates"),
        ("x86_64", ["avx2", "avx_vnni"], "exact"),
        ("AMD64", ["avx512f", "avx512_vnni"], "exact"),
        ("x86_64", ["amx_int8"], "exact"),
        ("x86_64", [], "exact"),  # the system does not tell
        ("aarch64", ["asimd", "asimddp"], "exact"),
    ],
)
def test_int8_saturates_on_x86_without_vnni(architecture: str, flags: list[str], sums: str) -> None:
    assert int8_saturates(architecture, flags) is (sums == "saturates")


def test_saturation_is_only_noted_for_integer_layers() -> None:
    assert saturation([layer("a", "f32"), layer("b", "i8", weighted=False)]) == []
    expected = int8_saturates(host()["architecture"], cpu_flags())
    assert bool(saturation([layer("a", "i8")])) is expected


shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
dtypes = st.sampled_from(["float32", "float64", "int64", "bool"])


@given(shapes, dtypes, shapes, dtypes, st.data())
def test_an_array_fits_exactly_when_dtype_rank_and_fixed_axes_agree(
    shape: tuple[int, ...],
    dtype: str,
    wanted: tuple[int, ...],
    wanted_dtype: str,
    data: st.DataObject,
) -> None:
    axes = tuple(data.draw(st.sampled_from([axis, None, "N"])) for axis in wanted)
    array = np.zeros(shape, dtype)
    spec = TensorSpec("t", wanted_dtype, axes)
    fits = (
        dtype == wanted_dtype
        and len(shape) == len(axes)
        and all(w in (None, "N", g) for w, g in zip(axes, shape, strict=True))
        and array.size > 0
    )
    if fits:
        (found,) = fitted({"t": array}, [spec]).values()
        np.testing.assert_array_equal(found, array)
        assert found.shape == shape
    else:
        with pytest.raises(EngineError, match=r"input 't'(: expected t | is empty)"):
            fitted({"t": array}, [spec])


def test_host_tells_the_machine() -> None:
    facts = host()
    assert facts["cpu"]
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert 1 <= usable_cores() <= facts["logical_cores"]
    assert facts["python"].endswith(".".join(map(str, sys.version_info[:3])))


def test_versions_are_the_installed_ones() -> None:
    found = versions()
    assert found["openvino"] == version("openvino")
    assert found["numpy"] == np.__version__
    assert "not-a-package" not in found


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="has CUDA"
)
def test_cuda_without_its_wheel_is_unavailable_and_nothing_runs_instead(tmp_path: Path) -> None:
    engine = OnnxRuntime(provider="cuda")
    (tmp_path / "engines").mkdir()
    model = saved(float_net(), tmp_path)
    build = OnnxRuntime().build(model, "fp32", tmp_path / "engines")
    with pytest.raises(EngineUnavailable, match=r"no CUDA provider.*onnxruntime-gpu"):
        engine.available()
    with pytest.raises(EngineUnavailable, match="no CUDA provider"):
        engine.build(model, "fp32", tmp_path / "engines")
    with pytest.raises(EngineUnavailable, match="no CUDA provider"):
        engine.open(build, tmp_path).__enter__()


@pytest.mark.parametrize(
    ("engine", "module"), [(OpenVino(), "openvino"), (OnnxRuntime(), "onnxruntime")]
)
def test_a_missing_library_says_what_to_install(
    engine: Engine, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineUnavailable, match=f"pip install {module}"):
        engine.available()


def test_a_session_keeps_every_tensor_unless_optimized() -> None:
    model = float_net()
    for tensor in ("c1", "a2"):  # fused away otherwise
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    opened = session(model.SerializeToString(), threads=1, optimize=False)
    names = [port.name for port in opened.get_outputs()]
    found = run(opened, names, images(2))
    assert names == ["y", "c1", "a2"]
    for name, value in expected(model, images(2)).items():
        np.testing.assert_allclose(
            found[name].astype(np.float64), value.astype(np.float64), rtol=1e-4, atol=1e-5
        )


def test_a_session_error_names_the_node() -> None:
    broken = single_node("Frobnicate").SerializeToString()
    with pytest.raises(EngineError, match=r"cannot load the model: .*Frobnicate"):
        session(broken)


def test_engine_parameters_are_checked_by_the_registry() -> None:
    assert make("engine", ENGINES, "openvino", {"threads": 2}) == OpenVino(threads=2)
    with pytest.raises(ConfigError, match="threads"):
        make("engine", ENGINES, "openvino", {"threads": 0})
    with pytest.raises(ConfigError, match="provider"):
        make("engine", ENGINES, "onnxruntime", {"provider": "tpu"})
