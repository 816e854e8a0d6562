"""What the real parser of TensorRT-RTX refuses names the node, why, and what to do."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantlab.engines.trt import log, network
from quantlab.engines.trt.library import Library
from quantlab.errors import EngineError
from tests.engines.trt import nets
from tests.trt_bindings.releases import Release, parameters, run


def parsed(library: Library, path: Path) -> network.Parsed:
    logger = log.make(library.module, log.Log())
    builder = network.start(library, logger, log.Log())
    return network.parse(library, builder, logger, path, strong=True)


def refusal(library: Library, model: onnx.ModelProto | bytes, folder: Path) -> str:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(EngineError) as caught:
        parsed(library, path)
    return str(caught.value)


def test_a_good_model_becomes_a_network(rtx: Library, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(nets.small_net(batch="N"), path)
    found = parsed(rtx, path)
    assert found.inputs == {"x": (-1, 16, 8, 8)}
    names = [tensor.name for tensor in network.tensors(found.network)]
    assert names[0] == "x"
    assert {"conv1_out", "relu1_out", "conv2_out"} <= set(names)


def test_weights_in_a_file_beside_the_model_are_read(rtx: Library, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        nets.small_net(),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    assert parsed(rtx, path).network.num_layers > 2
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(EngineError, match=r"cannot read model\.onnx"):
        parsed(rtx, path)


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "operator": (
        nets.unknown_operator,
        "node 'fold1' (Fold): it has no operator 'Fold' of domain 'acme.ops'; if a plugin impl",
    ),
    "operator, remedy": (nets.unknown_operator, "in the config: 'plugins: [libfoo.so]'"),
    "in a branch": (nets.unknown_inside_if, "node 'fold2' (Fold): it has no operator 'Fold'"),
    "int32 bias": (
        nets.integer_bias,
        "node 'bias_dq' (DequantizeLinear): Error Code 4: API Usage Error (bias_dq: input has ty",
    ),
    "int32 bias, remedy": (nets.integer_bias, "biases must not go through Q/DQ: keep them in fl"),
    "scale 0": (nets.zero_scale, "'quantize1' (QuantizeLinear): Assertion failed"),
    "scale 0, remedy": (nets.zero_scale, "make its scale greater than 0"),
    "zero point": (nets.asymmetric, "quantize with zero point 0"),
    "integers": (nets.integer_conv, "node 'conv1' (ConvInteger): it is not supported; rewrite"),
    "shape": (nets.shape_as_input, "input 'shape' of model.onnx decides the shape of other"),
}


@pytest.mark.parametrize(("make", "told"), REFUSED.values(), ids=REFUSED)
def test_a_refused_node_is_named_with_what_to_do(
    rtx: Library, tmp_path: Path, make: Callable[[], onnx.ModelProto], told: str
) -> None:
    message = refusal(rtx, make(), tmp_path)
    assert message.startswith(str(rtx))
    assert "model.onnx" in message
    assert told in message
    assert "cudaError" not in message
    assert "\n" not in message


def test_a_file_that_is_no_model_says_so(rtx: Library, tmp_path: Path) -> None:
    whole = nets.small_net().SerializeToString()
    for data in (b"nonsense", whole[:-50]):
        assert "no whole ONNX model: export or copy it again" in refusal(rtx, data, tmp_path)
    assert "finds no output in model.onnx" in refusal(rtx, b"", tmp_path)


def test_strings_are_no_input(rtx: Library, tmp_path: Path) -> None:
    model = nets.single(
        helper.make_node("Identity", ["x"], ["y"], "copy"),
        inputs={"x": (TensorProto.STRING, [2])},
        output=TensorProto.STRING,
    )
    assert "TensorRT has no such element type" in refusal(rtx, model, tmp_path)


def test_plugin_libraries_are_loaded_or_named(rtx: Library, tmp_path: Path) -> None:
    library = next(Path(np.__file__).parent.glob("random/_pcg64*.so"))
    network.load_plugins(rtx, (library, library))
    with pytest.raises(EngineError, match=r"plugin library .*libno\.so is missing; correct 'plug"):
        network.load_plugins(rtx, (tmp_path / "libno.so",))
    (tmp_path / "libtext.so").write_text("not a library")
    with pytest.raises(EngineError, match=rf"libtext\.so cannot be loaded.*built for {rtx}"):
        network.load_plugins(rtx, (tmp_path / "libtext.so",))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_library_that_exports_plugins_is_registered(rtx: Library, tmp_path: Path) -> None:
    """TensorRT asks it for its plugins, once; this one has none, which TensorRT calls an error."""
    source, path = tmp_path / "plugins.c", tmp_path / "libplugins.so"
    source.write_text(
        "static int asked; int times(void) { return asked; }\n"
        "void *const *getCreators(int *count) { *count = 0; ++asked; return 0; }\n"
        "void setLoggerFinder(void *finder) { (void)finder; }\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    with pytest.raises(EngineError, match=r"libplugins\.so: TensorRT-RTX .* cannot register"):
        network.load_plugins(rtx, (path,))
    network.load_plugins(rtx, (path,))  # it is in this process already
    assert ctypes.CDLL(str(path)).times() == 1


@pytest.mark.parametrize("release", parameters("8", "10", "11"))
def test_a_tensorrt_that_does_not_start_says_so(release: Release) -> None:
    """Over the genuine bindings: behind them is no TensorRT, so no Builder comes."""
    said = run(
        release,
        "from quantlab.engines.trt import library, log, network\n"
        "from quantlab.errors import EngineUnavailable\n"
        "found, told = library.load('tensorrt'), log.Log()\n"
        "try:\n"
        "    network.start(found, log.make(found.module, told), told)\n"
        "except EngineUnavailable as error:\n"
        "    print(error)\n",
    )
    assert said.startswith(f"TensorRT {release.version} does not start: ")
    assert "check with nvidia-smi" in said
