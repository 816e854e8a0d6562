"""Files that are no models, or wrong ones, are refused with one clear message."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantlab.errors import ModelError, OutputError
from quantlab.graph.model import facts, inputs, load, outputs, save, validate
from tests.graph.running import run
from tests.models import Net, feeds, residual, stacked, write


def test_round_trip(tmp_path: Path) -> None:
    path = write(residual(), tmp_path / "m.onnx")
    save(load(path), tmp_path / "again.onnx")
    given = feeds(residual())
    for name, values in run(path, given).items():
        np.testing.assert_array_equal(run(tmp_path / "again.onnx", given)[name], values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.onnx", "m.onnx"]


def test_large_weights_go_beside_the_file(tmp_path: Path) -> None:
    path = write(stacked([]), tmp_path / "m.onnx")
    target = tmp_path / "big.onnx"
    save(load(path), target, external_bytes=1000)
    assert (tmp_path / "big.onnx.data").stat().st_size > 256 * 32 * 4
    assert target.stat().st_size < path.stat().st_size / 4
    given = feeds(stacked([]))
    assert {k: v.tolist() for k, v in run(target, given).items()} == {
        k: v.tolist() for k, v in run(path, given).items()
    }
    save(load(target), target, external_bytes=1000)  # over the file that it is read from
    save(load(target), tmp_path / "whole.onnx")
    assert run(tmp_path / "whole.onnx", given).keys() == run(path, given).keys()
    assert not (tmp_path / "whole.onnx.data").exists()


def test_inputs_and_outputs(tmp_path: Path) -> None:
    net = Net()
    made = net.finish(net.conv(net.input(shape=("N", 16, -1, 8)), (16, 16)))
    model = load(write(made, tmp_path / "m.onnx"))
    assert [str(spec) for spec in inputs(model)] == ["x float32[N, 16, ?, 8]"]
    assert [spec.name for spec in outputs(model)] == ["conv0_out"]


def test_facts(tmp_path: Path) -> None:
    path = write(residual(), tmp_path / "m.onnx")
    told = facts(load(path), path)
    assert told.opset == 17
    assert told.nodes == len(residual().graph.node)
    assert told.parameters == sum(int(np.prod(t.dims)) for t in residual().graph.initializer)
    assert told.inputs == ("x float32[N, 1, 8, 8]",)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.onnx")


@pytest.mark.parametrize("content", [b"", b"hello world, no model", b"\x00" * 64, b"\x08\x07"])
def test_not_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.99])
def test_truncated(part: float, tmp_path: Path) -> None:
    path = write(residual(), tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelError, match="truncated"):
        load(path)


@pytest.mark.parametrize("version", [8, 999])
def test_opset_out_of_range(version: int, tmp_path: Path) -> None:
    made = residual()
    made.opset_import[0].version = version
    with pytest.raises(ModelError, match=rf"opset {version} cannot be read, 9 to \d+ can"):
        load(write(made, tmp_path / "m.onnx"))


def test_no_opset(tmp_path: Path) -> None:
    made = residual()
    made.opset_import[0].domain = "com.example"
    with pytest.raises(ModelError, match="no standard ONNX opset"):
        load(write(made, tmp_path / "m.onnx"))


def test_unknown_operator(tmp_path: Path) -> None:
    made = residual()
    made.graph.node[2].op_type = "Relux"
    with pytest.raises(ModelError, match="Relux"):
        load(write(made, tmp_path / "m.onnx"))


def test_operator_of_an_unknown_domain(tmp_path: Path) -> None:
    made = residual()
    made.graph.node[2].domain = "com.example"
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run it: .*com\.example"):
        load(write(made, tmp_path / "m.onnx"))


def test_weights_of_the_wrong_size(tmp_path: Path) -> None:
    made = residual()
    made.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(ModelError, match=r"'conv0.weight' has \d+ bytes of data, .* need \d+"):
        load(write(made, tmp_path / "m.onnx"))


def test_weights_of_an_unknown_type(tmp_path: Path) -> None:
    made = residual()
    made.graph.initializer[0].data_type = 77
    with pytest.raises(ModelError, match=r"'conv0.weight' has the unknown element type 77"):
        load(write(made, tmp_path / "m.onnx"))


def test_an_output_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    net = Net()
    parts = net.add("SplitToSequence", [net.conv(net.input(), (16, 16))])
    made = net.finish("conv0_out")
    made.graph.output.append(helper.make_tensor_sequence_value_info(parts, TensorProto.FLOAT, None))
    model = load(write(made, tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="'splittosequence1_out' is no tensor but Sequence"):
        outputs(model)


def external(folder: Path, **entries: str) -> Path:
    """Write a model whose first weights are in a data file that ``entries`` describe."""
    made = residual()
    tensor = made.graph.initializer[0]
    (folder / "data.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return write(made, folder / "m.onnx")


def test_external_data_is_read(tmp_path: Path) -> None:
    load(external(tmp_path, location="data.bin"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "absent.bin"}, "is missing; copy that file beside the model"),
        ({"location": "../outside.bin"}, "not inside the model's folder"),
        ({"location": "/etc/passwd"}, "not inside the model's folder"),
        ({}, "not inside the model's folder"),
        ({"location": "data.bin", "offset": "8"}, "the file is truncated"),
        ({"location": "data.bin", "offset": "-8"}, "the file is truncated"),
        ({"location": "data.bin", "length": "x"}, "no number"),
    ],
)
def test_bad_external_data(entries: dict[str, str], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"0" * 10_000)
    with pytest.raises(ModelError, match=message):
        load(external(folder, **entries))


def test_external_data_behind_a_link_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external(folder, location="link.bin")
    (folder / "data.bin").rename(tmp_path / "outside.bin")
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ModelError, match="not inside"):
        load(path)


def test_invalid_model_is_not_written(tmp_path: Path) -> None:
    model = load(write(residual(), tmp_path / "m.onnx"))
    next(iter(model.graph)).op_type = "Convolution"
    with pytest.raises(ModelError, match="not valid ONNX"):
        save(model, tmp_path / "bad.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    model = load(write(residual(), tmp_path / "m.onnx"))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot write"):
        save(model, folder / "m.onnx")


def test_validate_names_the_node(tmp_path: Path) -> None:
    made = residual()
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend([16, 3, 3])
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="conv0"):
        validate(tmp_path / "m.onnx")
