"""``quantlab init`` writes a config that runs as soon as the samples are there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

import quantlab as ql
from quantlab import configfile
from quantlab.errors import ModelError, OutputError
from quantlab.plugs import PLUGS
from tests.models import Net, residual, write
from tests.runs import quantlab

Arrays = dict[str, NDArray[np.generic]]
RNG = np.random.default_rng(0)


def floats(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def classifier() -> tuple[onnx.ModelProto, Arrays]:
    return residual(), {"x": floats(40, 1, 8, 8)}


def several_inputs() -> tuple[onnx.ModelProto, Arrays]:
    net = Net()
    ids = net.input("token ids", ("batch", "length"), TensorProto.INT64)
    values = net.input("values", ("batch", 16))
    table = net.random("table", (5, 16))
    words = net.add("ReduceMean", [net.add("Gather", [table, ids])], attributes={"axes": [1]})
    both = net.add("Concat", [net.add("Flatten", [words]), values], attributes={"axis": 1})
    model = net.finish(net.gemm(net.relu(net.gemm(both, (32, 32))), (32, 8)))
    return model, {"token ids": RNG.integers(0, 5, (40, 7)), "values": floats(40, 16)}


def fixed_batch() -> tuple[onnx.ModelProto, Arrays]:
    net = Net()
    x = net.conv(net.input("image", (4, 3, 8, 8)), (3, 16))
    return net.finish(net.conv(net.relu(x), (16, 16))), {"image": floats(8, 3, 8, 8)}


def scalar_input() -> tuple[onnx.ModelProto, Arrays]:
    net = Net()
    gain = net.input("gain", ())
    x = net.relu(net.conv(net.input("image", ("N", 3, 8, 8)), (3, 16)))
    x = net.add("Flatten", [net.add("Mul", [x, gain])])
    return net.finish(net.gemm(x, (1024, 8))), {
        "gain": floats(40),
        "image": floats(40, 3, 8, 8),
    }


def strange_names() -> tuple[onnx.ModelProto, Arrays]:
    """Return a model whose names try to break out of the comments."""
    net = Net()
    name = "x\u2028output: /nowhere #: {'\"\\"
    x = net.conv(net.input(name, ("N\nb: 1", 3, 8, 8)), (3, 16))
    return net.finish(net.gemm(net.add("Flatten", [net.relu(x)]), (1024, 8))), {
        name: floats(40, 3, 8, 8)
    }


def integers_out() -> tuple[onnx.ModelProto, Arrays]:
    net = Net()
    x = net.add("Flatten", [net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), (3, 16)))])
    scores = net.gemm(x, (1024, 8))
    best = net.add("ArgMax", [scores], attributes={"axis": 1})
    model = net.finish(scores, best)
    model.graph.output[1].CopyFrom(
        onnx.helper.make_tensor_value_info(best, TensorProto.INT64, ["N", 1])
    )
    return model, {"x": floats(40, 3, 8, 8)}


MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, Arrays]]] = {
    "classifier": classifier,
    "several inputs": several_inputs,
    "fixed batch": fixed_batch,
    "scalar input": scalar_input,
    "strange names": strange_names,
    "two outputs": integers_out,
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_config_runs_once_the_samples_are_there(kind: str, tmp_path: Path) -> None:
    made, arrays = MODELS[kind]()
    model = write(made, tmp_path / "my model: v1 #2.onnx")
    assert quantlab("init", model).code == 0
    config = model.with_suffix(".yaml")
    tree = yaml.safe_load(config.read_text())
    assert set(tree) == {"model", "calibration", "engines", "evaluation", "benchmark", "output"}
    assert tree["model"] == model.name
    assert tree["output"] == f"runs/{model.stem}"
    before = quantlab("run", config, "-q")
    assert before.code == 2
    assert "samples.npz" in before.err
    np.savez(tmp_path / "samples.npz", **arrays)  # type: ignore[arg-type]  # not allow_pickle
    text = config.read_text().replace("seconds: 3", "seconds: 0.01, rounds: 2")
    text = text.replace("precisions: [fp32, fp16, int8]", "precisions: [fp32, int8]")
    config.write_text(text)
    outcome = quantlab("run", config, "-q")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "runs" / model.stem / "report.html").exists()


def test_inputs_outputs_and_the_line_that_saves_samples_are_shown(tmp_path: Path) -> None:
    made, _ = several_inputs()
    text = ql.init(write(made, tmp_path / "model.onnx")).read_text()
    assert "#   token ids int64[batch, length]\n" in text
    assert "#   values float32[batch, 16]\n" in text
    assert "numpy.savez(\"samples.npz\", **{'token ids': ...}, values=...)" in text


def test_the_batch_is_what_the_model_allows(tmp_path: Path) -> None:
    made, _ = fixed_batch()
    tree = yaml.safe_load(ql.init(write(made, tmp_path / "model.onnx")).read_text())
    assert tree["calibration"]["batch"] == 4
    assert tree["benchmark"]["batches"] == [4]


@pytest.mark.parametrize("name", ["a", "1", "null", "a b", "é", 'q"uo\\te', "-", "x: y", "#1"])
def test_the_model_is_found_whatever_its_name(name: str, tmp_path: Path) -> None:
    made, _ = classifier()
    for folder in (tmp_path, tmp_path / name):
        folder.mkdir(exist_ok=True)
        model = write(made, folder / f"{name}.onnx")
        config = ql.init(model, output=tmp_path / "config.yaml")
        loaded = configfile.load(config, PLUGS)
        assert loaded.model == model
        assert loaded.output == tmp_path / "runs" / name
        config.unlink()


def test_a_model_elsewhere_is_named_by_its_whole_path(tmp_path: Path) -> None:
    made, _ = classifier()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = write(made, tmp_path / "a" / "model.onnx")
    config = ql.init(str(model), output=tmp_path / "b" / "config.yaml")
    assert configfile.load(config, PLUGS).model == model


def test_what_cannot_be_read_or_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        ql.init(tmp_path / "none.onnx")
    model = write(classifier()[0], tmp_path / "model.onnx")
    with pytest.raises(OutputError, match=r"cannot write .*none/config\.yaml"):
        ql.init(model, output=tmp_path / "none" / "config.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_another_dataset_may_be_filled_in(tmp_path: Path) -> None:
    model = write(classifier()[0], tmp_path / "model.onnx")
    config = ql.init(model)
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = RNG.integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    dataset = {"kind": "image_folder", "path": "images", "colour": "gray"}
    text = config.read_text().replace("{kind: npz, path: samples.npz}", json.dumps(dataset))
    config.write_text(text)
    assert ql.calibrate(config).exists()
