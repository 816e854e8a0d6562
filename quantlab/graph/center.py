"""Centring: what a ReLU gives is moved down by half its range, so that INT8 uses its whole grid.

Behind a ReLU nothing is negative, and a symmetric grid stands idle by half.  With the threshold T
of a tensor t, and s = T / 2,

    t = Relu(x + b)         becomes     u = Clip(x + (b - s), -s)         u = t - s
    W t + c                 becomes     W u + (c + s W 1)

and u fills [-s, s] in steps of half the size.  A convolution that pads t with zeros would pad u
with zeros as well, which stand for s: so ``s W 1`` counts only the taps that lie inside, and is a
map over the positions of the output that an Add brings in.

Precision: FP32 computes the same up to rounding.  t = 0 is the integer -127 exactly.
Limits: tensors that one Relu (or Clip from 0) of one layer writes, and only quantized Conv, Gemm
        and MatMul with constant weights read; maps need a fixed size of the image, and have at most
        ``MOST`` elements, because the model stores them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.add_biases import add_behind, add_biases
from quantlab.graph.editor import Editor
from quantlab.graph.input_sums import (
    Floats,
    elements,
    input_sums,
    is_plain,
    output_axis,
    weights_of,
)
from quantlab.graph.passes import copy
from quantlab.graph.sites import Placement
from quantlab.graph.view import CONVOLUTIONS, attribute_int, constant, only_reader, upper_bound

MOST = 1 << 22
"""Elements of a map: 16 MiB, such as 64 channels of 256 x 256 positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Centred:
    """What was made.

    Attributes:
        model: a new model, or the very argument if no tensor could be centred.
        shifts: by tensor, what was taken off it.
        moved: tensors that hold other values than before: these and what their clips read.
        maps: layers that an Add of a map now follows.
    """

    model: ir.Model
    shifts: Mapping[str, float]
    moved: frozenset[str]
    maps: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Site:
    """A tensor that can be centred: what writes it, and what reads it."""

    writer: ir.Node
    clip: ir.Node
    readers: tuple[ir.Node, ...]

    @property
    def tensor(self) -> str:
        return str(self.clip.outputs[0].name)


def center(model: ir.Model, placement: Placement, thresholds: Mapping[str, float]) -> Centred:
    """Centre every tensor for which that is possible.

    Args:
        model: prepared and placed; stays as it is.
        placement: of this model.
        thresholds: T of the quantized tensors with symmetric grids; others are left alone.
    """
    editor = Editor(copy(model))
    shifts = {}
    biases: dict[str, NDArray[np.float32]] = {}
    maps: dict[str, NDArray[np.float32]] = {}
    moved: set[str] = set()
    for site in _sites(editor.model, placement):
        shift = thresholds.get(site.tensor, 0.0) / 2
        if not shift > 0:  # not symmetric, or all zero
            continue
        shifts[site.tensor] = shift
        moved |= {site.tensor, str(site.clip.inputs[0].name)}  # type: ignore[union-attr]  # a clip reads something
        _add(biases, site.writer, -shift * np.ones(_channels(site.writer)))
        _lower(editor, site.clip, shift)
        for reader in site.readers:
            inside = shift * input_sums(reader)
            flat = inside.reshape(len(inside), -1)
            middle = flat[:, flat.shape[1] // 2]  # most positions: they need no map
            _add(biases, reader, middle)
            if (rest := flat - middle[:, None]).any():
                maps[str(reader.name)] = rest.reshape(1, *inside.shape).astype(np.float32)
    if not shifts:
        return Centred(model, {}, frozenset(), ())
    add_biases(editor, biases)
    for name, values in maps.items():
        add_behind(editor, editor.node(name), values)
    editor.model.graph.sort()
    return Centred(editor.model, shifts, frozenset(moved), tuple(maps))


def _sites(model: ir.Model, placement: Placement) -> Iterator[_Site]:
    quantized = {a.tensor: {edge.node for edge in a.edges} for a in placement.activations}
    for node in model.graph:
        value = node.outputs[0] if _from_zero(node) else None
        if value is None or value.is_graph_output():
            continue
        writer, users = _writer(node.inputs[0]), value.consumers()
        names = {str(user.name) for user in users}
        if writer is None or not names or not names <= quantized.get(str(value.name), set()):
            continue
        if all(is_plain(user, value) and elements(user) <= MOST for user in users):
            yield _Site(writer, node, tuple(users))


def _from_zero(node: ir.Node) -> bool:
    """Whether a node is a Relu or a Clip from 0 up to a constant."""
    return node.op_type == "Relu" or upper_bound(node) is not None


def _writer(value: ir.Value | None) -> ir.Node | None:
    """Return the layer whose bias moves a tensor that a clip alone reads."""
    node = None if value is None else value.producer()
    if value is None or node is None or only_reader(value) is None:
        return None
    if node.op_type == "Add" and any(map(constant, node.inputs)):  # the bias of a MatMul
        made = next((v for v in node.inputs if not constant(v)), None)
        before = None if made is None else made.producer()
        if made is None or before is None or before.op_type != "MatMul":
            return None
        return before if only_reader(made) is node and weights_of(before) is not None else None
    plain = node.op_type in CONVOLUTIONS | {"Gemm"} and weights_of(node) is not None
    return node if plain and all(map(constant, node.inputs[1:])) else None


def _channels(node: ir.Node) -> int:
    """Return the output channels of a layer."""
    count = np.shape(weights_of(node))[output_axis(node)]  # type: ignore[arg-type]  # it has some
    return int(count) * (attribute_int(node, "group", 1) if node.op_type == "ConvTranspose" else 1)


def _add(found: dict[str, NDArray[np.float32]], node: ir.Node, values: Floats) -> None:
    name = str(node.name)
    found[name] = (found.get(name, np.float32(0)) + values).astype(np.float32)


def _lower(editor: Editor, clip: ir.Node, shift: float) -> None:
    """Take ``shift`` off the bounds of a Relu or Clip."""
    name, high = clip.outputs[0].name, upper_bound(clip)
    bounds = [editor.constant(f"{name}_low", np.array(-shift, np.float32))]
    if high is not None and np.isfinite(high):
        bounds.append(editor.constant(f"{name}_high", np.array(high - shift, np.float32)))
    clip.op_type = "Clip"
    clip.attributes.clear()
    clip.resize_inputs(1 + len(bounds))
    for slot, bound in enumerate(bounds, 1):
        clip.replace_input_with(slot, bound)
