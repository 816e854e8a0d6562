"""Every change of a model shows in its digests, and no way of saving it again does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from quantlab.errors import ModelError
from quantlab.manifest import model_digests
from tests.cache import models

Change = Callable[[ModelProto], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def digests(model: ModelProto, folder: Path) -> tuple[str, str]:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return model_digests(path)


def changed(change: Change, folder: Path) -> tuple[bool, bool]:
    """Whether the graph's and the weights' digest change with the model."""
    before, after = models.build(), models.build()
    change(after)
    assert before.SerializeToString() != after.SerializeToString()
    (graph, weights), (new_graph, new_weights) = digests(before, folder), digests(after, folder)
    return graph != new_graph, weights != new_weights


def node(model: ModelProto, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto
    (found,) = (node for node in model.graph.node if node.name == name)
    return found


def attribute(model: ModelProto, name: str, key: str) -> AttributeProto:
    found: AttributeProto
    (found,) = (each for each in node(model, name).attribute if each.name == key)
    return found


def edited(tensor: TensorProto) -> None:
    """Flip the lowest bit of the last element."""
    tensor.raw_data = tensor.raw_data[:-4] + bytes([tensor.raw_data[-4] ^ 1]) + tensor.raw_data[-3:]


def swapped_branches(model: ModelProto) -> None:
    one, two = (attribute(model, "if", key) for key in ("then_branch", "else_branch"))
    one.name, two.name = two.name, one.name


GRAPH_CHANGES: dict[str, Change] = {
    "operator": lambda m: setattr(node(m, "relu"), "op_type", "Sigmoid"),
    "domain": lambda m: setattr(node(m, "relu"), "domain", "com.example"),
    "overload": lambda m: setattr(node(m, "halve"), "overload", "other"),
    "input of a node": lambda m: node(m, "add").input.__setitem__(0, "halved"),
    "order of inputs": lambda m: node(m, "add").input.reverse(),
    "skipped input": lambda m: (node(m, "clip").input.pop(), node(m, "clip").input.insert(1, "")),
    "tensor renamed": lambda m: (
        node(m, "conv").output.__setitem__(0, "conv2"),
        node(m, "relu").input.__setitem__(0, "conv2"),
    ),
    "attribute changed": lambda m: attribute(m, "conv", "pads").ints.__setitem__(0, 0),
    "attribute added": lambda m: node(m, "conv").attribute.append(
        helper.make_attribute("dilations", [1, 1])
    ),
    "attribute removed": lambda m: node(m, "conv").attribute.remove(attribute(m, "conv", "group")),
    "constant": lambda m: edited(attribute(m, "constant", "value").t),
    "node of a branch": lambda m: setattr(
        attribute(m, "if", "then_branch").g.node[0], "op_type", "Sub"
    ),
    "branches swapped": swapped_branches,
    "function": lambda m: setattr(m.functions[0].node[0], "op_type", "Sub"),
    "function's opset": lambda m: setattr(m.functions[0].opset_import[0], "version", 18),
    "function's inputs": lambda m: m.functions[0].input.reverse(),
    "opset": lambda m: setattr(m.opset_import[0], "version", 16),
    "node removed": lambda m: m.graph.node.remove(node(m, "relu")),
    "node added": lambda m: m.graph.node.append(helper.make_node("Abs", ["y"], ["z"])),
    "input renamed": lambda m: setattr(m.graph.input[0], "name", "x2"),
    "input's type": lambda m: setattr(
        m.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT16
    ),
    "input's shape": lambda m: setattr(
        m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 7
    ),
    "output": lambda m: setattr(m.graph.output[0], "name", "clipped"),
    "output added": lambda m: m.graph.output.append(
        helper.make_tensor_value_info("relu", TensorProto.FLOAT, None)
    ),
}


@pytest.mark.parametrize("name", GRAPH_CHANGES)
def test_every_change_of_the_graph_shows(name: str, folder: Path) -> None:
    graph, _ = changed(GRAPH_CHANGES[name], folder)
    assert graph


def reshaped(tensor: TensorProto) -> None:
    tensor.dims[:] = [4, 27]


def cast(model: ModelProto) -> None:
    low = numpy_helper.from_array(np.array(-1.0, np.float16), "low")
    model.graph.initializer[2].CopyFrom(low)


def swapped_shifts(model: ModelProto) -> None:
    """Exchange two initializers of one name in two inner graphs."""
    one, two = (
        attribute(model, "if", key).g.initializer[0] for key in ("then_branch", "else_branch")
    )
    one.raw_data, two.raw_data = two.raw_data, one.raw_data


WEIGHT_CHANGES: dict[str, Change] = {
    "a bit of the convolution": lambda m: edited(m.graph.initializer[0]),
    "a bit of the bias": lambda m: edited(m.graph.initializer[1]),
    "a bit of a scalar": lambda m: edited(m.graph.initializer[2]),
    "element type": cast,
    "dims": lambda m: reshaped(m.graph.initializer[0]),
    "removed": lambda m: m.graph.initializer.pop(),
    "weight of a branch": lambda m: edited(attribute(m, "if", "else_branch").g.initializer[0]),
    "weights of branches swapped": swapped_shifts,
    "sparse values": lambda m: edited(m.graph.sparse_initializer[0].values),
    "sparse dims": lambda m: m.graph.sparse_initializer[0].dims.__setitem__(0, 7),
}


@pytest.mark.parametrize("name", WEIGHT_CHANGES)
def test_every_change_of_the_weights_shows_and_is_told_apart(name: str, folder: Path) -> None:
    assert changed(WEIGHT_CHANGES[name], folder) == (False, True)


@given(st.data())
def test_any_bit_of_any_weight_shows(folder: Path, data: st.DataObject) -> None:
    def flip(model: ModelProto) -> None:
        tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
        raw = bytearray(tensor.raw_data)
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        tensor.raw_data = bytes(raw)

    assert changed(flip, folder) == (False, True)


def text_noise(model: ModelProto) -> None:
    model.doc_string = model.graph.doc_string = "saved again"
    model.producer_name, model.producer_version, model.model_version = "tool", "2", 3
    model.graph.name = "main_graph"
    model.ir_version = 10
    helper.set_model_props(model, {"tool": "again"})
    for found in (*model.graph.node, *model.graph.input, *model.graph.initializer):
        found.doc_string = "again"
    for index, found in enumerate(model.graph.node):
        found.name = f"node_{index}"
        for key in found.attribute:
            key.doc_string = "again"


def reordered(model: ModelProto) -> None:
    for repeated in (model.graph.initializer, model.opset_import, node(model, "conv").attribute):
        found = list(repeated)
        del repeated[:]
        repeated.extend(reversed(found))
    moved = model.graph.node.pop(3)  # the constant needs nothing
    model.graph.node.insert(0, moved)


def typed(model: ModelProto) -> None:
    tensors = [*model.graph.initializer, attribute(model, "constant", "value").t]
    for tensor in tensors:
        tensor.float_data.extend(numpy_helper.to_array(tensor).ravel().tolist())
        tensor.ClearField("raw_data")


def listed_as_inputs(model: ModelProto) -> None:
    """Name the initializers among the inputs, as files of IR version 3 must."""
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)


RESAVES: dict[str, Change] = {
    "text": text_noise,
    "order": reordered,
    "typed storage": typed,
    "initializers among the inputs": listed_as_inputs,
    "inner shapes": lambda m: m.CopyFrom(onnx.shape_inference.infer_shapes(m)),
    "default domain by its long name": lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"),
    "empty inputs at the end": lambda m: node(m, "clip").input.pop(),
}


@pytest.mark.parametrize("name", RESAVES)
def test_saving_again_is_no_change(name: str, folder: Path) -> None:
    assert changed(RESAVES[name], folder) == (False, False)


def test_saving_with_external_data_is_no_change(folder: Path) -> None:
    model = models.build()
    before = digests(model, folder)
    onnx.save(
        model,
        folder / "outside.onnx",
        save_as_external_data=True,
        location="outside.data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (folder / "outside.data").stat().st_size
    assert model_digests(folder / "outside.onnx") == before


def test_loading_and_saving_with_onnx_ir_is_no_change(folder: Path) -> None:
    model = models.build()
    del model.graph.sparse_initializer[:]  # which onnx-ir does not read
    model.graph.input.append(helper.make_tensor_value_info("sparse", TensorProto.FLOAT, [6]))
    before = digests(model, folder)
    again = onnx_ir.load(folder / "model.onnx")
    onnx_ir.save(again, folder / "again.onnx")
    assert model_digests(folder / "again.onnx") == before
    onnx_ir.save(again, folder / "out.onnx", external_data="out.data", size_threshold_bytes=0)
    assert model_digests(folder / "out.onnx") == before


@pytest.mark.parametrize(
    "data_type",
    [
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.INT4,
        TensorProto.UINT8,
        TensorProto.INT64,
        TensorProto.BOOL,
    ],
)
def test_each_element_type_is_the_same_stored_raw_or_typed(data_type: int, folder: Path) -> None:
    values = [0, 1, 1, 0, 1]
    found = set()
    for tensor in (
        helper.make_tensor("t", data_type, [5], values),
        numpy_helper.from_array(
            np.array(values).astype(helper.tensor_dtype_to_np_dtype(data_type)), "t"
        ),
    ):
        found.add(digests(with_tensor(tensor), folder))
    assert len(found) == 1


def with_tensor(tensor: TensorProto) -> ModelProto:
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor]))


def test_strings_are_read(folder: Path) -> None:
    found = set()
    for strings in ([b"ab", b"c"], [b"a", b"bc"]):
        tensor = TensorProto(name="t", data_type=TensorProto.STRING, dims=[2], string_data=strings)
        found.add(digests(with_tensor(tensor), folder))
    assert len(found) == 2


def outside(folder: Path, key: str, value: str) -> Path:
    """Save with external data whose entry ``key`` is then replaced."""
    path = folder / "bad.onnx"
    onnx.save(
        models.build(), path, save_as_external_data=True, location="bad.data", size_threshold=0
    )
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "../../etc/passwd", "outside the base directory"),
        ("location", "/etc/passwd", "outside the base directory"),
        ("location", "missing.data", "No such file"),
        ("offset", "99999999", "offset must be"),
        ("offset", "-4", "tensor 'w'"),
        ("length", "abc", "tensor 'w'"),
    ],
)
def test_bad_external_data_is_refused(tmp_path: Path, key: str, value: str, message: str) -> None:
    path = outside(tmp_path, key, value)
    with pytest.raises(ModelError, match="cannot read the elements of tensor 'w'") as caught:
        model_digests(path)
    assert message in str(caught.value)


def test_short_external_data_is_refused(tmp_path: Path) -> None:
    path = outside(tmp_path, "none", "")
    data = tmp_path / "bad.data"
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(ModelError, match="cannot read the elements of tensor"):
        model_digests(path)


def test_missing_elements_are_refused(folder: Path) -> None:
    model = models.build()
    model.graph.initializer[1].ClearField("raw_data")
    with pytest.raises(ModelError, match="tensor 'b': expected 16 bytes of elements, got 0"):
        digests(model, folder)
    model.graph.initializer[1].data_type = 99
    with pytest.raises(ModelError, match=r"cannot read the elements of tensor 'b'.*99"):
        digests(model, folder)


@pytest.mark.parametrize("data", [b"", b"\x00\x01junk", b"{}", b"ir_version: 8"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"junk.onnx.*check the file"):
        model_digests(path)
    with pytest.raises(ModelError, match="cannot read"):
        model_digests(tmp_path / "missing.onnx")
