"""What each operator does to the channels of the tensors that it touches.

A place is a tensor and one of its axes, the channels.  A positive factor for each channel, s,
passes an operator f where ``f(s * x) = s * f(x)``; it can be written by constants, as
``(s * W) x + s * b``, and undone by constants that read it, as ``(W / s) (s * x)``.

    passes   Relu, LeakyRelu, PRelu, Identity, pools, means over other axes, Resize, Pad with 0,
             Transpose and reshapes that keep the axis, Add and Sub of two tensors, products with
             one constant for all channels or with what a sigmoid makes; Clip from 0 up to where
             its upper bound acts, which is for the caller to know
    written  Conv, ConvTranspose, Gemm, MatMul, Mul: output channels; normalizations with scale and
             bias; a constant that is added goes along
    read     Conv, ConvTranspose, Gemm, MatMul, Mul: input channels; grouped and depthwise too

Limits: sizes along the channels must be known; Concat and Split end a set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import onnx_ir as ir

from quantlab.graph.view import STANDARD, attribute_int, axes, constant, rank

Place = tuple[ir.Value, int]
"""A tensor and the axis that its channels are on."""

GATES = frozenset({"Sigmoid", "HardSigmoid"})
"""What makes one factor of a gate: it stays as it is, so the other factor decides the channels."""


@dataclass(frozen=True, slots=True)
class End:
    """A constant that writes or reads channels.

    Attributes:
        node: the node's name; slot: which of its inputs the constant is.
        axis: the channels' axis in the constant.
        groups: of a convolution.  With more than one and ``axis`` 1 that axis holds the channels of
            one group, and axis 0 the groups one after the other.
    """

    node: str
    slot: int
    axis: int
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Touch:
    """Places at one node that have their factors in common.

    Attributes:
        places: inputs and outputs of the node.
        writers: constants that the factors multiply.
        readers: constants that the factors divide.
    """

    places: tuple[Place, ...]
    writers: tuple[End, ...] = ()
    readers: tuple[End, ...] = ()


def touches(node: ir.Node) -> list[Touch]:
    """Return what factors can do at a node; empty if it lets none through and takes none."""
    rule = ROLES.get(node.op_type) if node.domain in STANDARD else None
    return [] if rule is None else list(rule(node))


def size(value: ir.Value | None, axis: int) -> int | None:
    """Return a tensor's size along an axis, None if it is not known."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    found = value.shape[axis]
    return found if isinstance(found, int) else None


def _link(
    *places: tuple[ir.Value | None, int],
    writers: tuple[End, ...] = (),
    readers: tuple[End, ...] = (),
) -> Iterator[Touch]:
    """Yield the touch of these places if they have the same number of channels, 2 or more."""
    known = tuple((value, axis) for value, axis in places if value is not None)
    sizes = {size(value, axis) for value, axis in known}
    if len(known) == len(places) and len(sizes) == 1 and (sizes.pop() or 1) > 1:
        yield Touch(known, writers, readers)


def _each_axis(node: ir.Node) -> Iterator[Touch]:
    for axis in range(rank(node.outputs[0]) or 0):
        yield from _link((node.inputs[0], axis), (node.outputs[0], axis))


def _second_axis(node: ir.Node) -> Iterator[Touch]:
    yield from _link((node.inputs[0], 1), (node.outputs[0], 1))


def _slope(node: ir.Node) -> Iterator[Touch]:
    if constant(node.inputs[1]):
        yield from _each_axis(node)


def _resize(node: ir.Node) -> Iterator[Touch]:
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is None or mode.as_string() != "tf_crop_and_resize":
        yield from _second_axis(node)


def _pad(node: ir.Node) -> Iterator[Touch]:
    mode, old = node.attributes.get("mode"), node.attributes.get("value")
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None or mode.as_string() == "constant":
        filled = given is not None and (given.const_value is None or given.const_value.numpy())
        if filled or (old is not None and old.as_float()):
            return
    yield from _each_axis(node)


def _reduce(node: ir.Node) -> Iterator[Touch]:
    before = rank(node.inputs[0]) or 0
    reduced = {axis % before for axis in axes(node)} if before else set()
    kept = attribute_int(node, "keepdims", 1)
    for axis in range(before) if reduced else ():
        if axis not in reduced:
            after = axis if kept else axis - sum(other < axis for other in reduced)
            yield from _link((node.inputs[0], axis), (node.outputs[0], after))


def _transpose(node: ir.Node) -> Iterator[Touch]:
    count = rank(node.inputs[0]) or 0
    given = node.attributes.get("perm")
    order = reversed(range(count)) if given is None else given.as_ints()
    for after, before in enumerate(order):
        yield from _link((node.inputs[0], before), (node.outputs[0], after))


def _reshape(node: ir.Node) -> Iterator[Touch]:
    """An axis is kept where as many elements lie behind it as before: the order is row-major."""
    source, made = node.inputs[0], node.outputs[0]
    for before, after in product(range(rank(source) or 0), range(rank(made) or 0)):
        inner = _behind(source, before)
        if inner is not None and inner == _behind(made, after):
            yield from _link((source, before), (made, after))


def _behind(value: ir.Value | None, axis: int) -> int | None:
    sizes = [size(value, other) for other in range(axis + 1, rank(value) or 0)]
    known = [found for found in sizes if found is not None]
    return prod(known) if len(known) == len(sizes) else None


def _sum(node: ir.Node) -> Iterator[Touch]:
    first, second, made = node.inputs[0], node.inputs[1], node.outputs[0]
    for axis in range(rank(made) or 0):
        if not constant(first) and not constant(second):
            if rank(first) == rank(second):
                yield from _link((first, axis), (second, axis), (made, axis))
        else:
            slot = 0 if constant(first) else 1
            end, other = _broadcast_end(node, slot, axis), node.inputs[1 - slot]
            if end is not None and rank(other) == rank(made):
                yield from _link((other, axis), (made, axis), writers=(end,))


def _product(node: ir.Node) -> Iterator[Touch]:
    slots = [slot for slot in (0, 1) if _stays(node, slot)]
    for slot in slots[:1]:
        other, made = node.inputs[1 - slot], node.outputs[0]
        for axis in range(rank(made) or 0):
            end = _broadcast_end(node, slot, axis)
            if end is not None and rank(other) == rank(made):
                yield from _link((other, axis), readers=(end,))
                yield from _link((made, axis), writers=(end,))
            elif rank(other) == rank(made):
                yield from _link((other, axis), (made, axis))


def _stays(node: ir.Node, slot: int) -> bool:
    """Whether a factor of a product is constant or a gate; a SiLU is no gate of its own input."""
    value, other = node.inputs[slot], node.inputs[1 - slot]
    maker = None if value is None else value.producer()
    gate = maker is not None and maker.op_type in GATES and maker.inputs[0] is not other
    return constant(value) or gate


def _quotient(node: ir.Node) -> Iterator[Touch]:
    for axis in range(rank(node.outputs[0]) or 0):
        if constant(node.inputs[1]) and _broadcast_end(node, 1, axis) is None:
            yield from _link((node.inputs[0], axis), (node.outputs[0], axis))


def _broadcast_end(node: ir.Node, slot: int, axis: int) -> End | None:
    """Return a constant that has one value for each index of the output's ``axis``."""
    value, made = node.inputs[slot], node.outputs[0]
    own = axis - (rank(made) or 0) + (rank(value) or 0)
    if not _trainable(node, slot) or own < 0 or (size(value, own) or 1) == 1:
        return None
    return End(str(node.name), slot, own)


def _conv(node: ir.Node) -> Iterator[Touch]:
    if _trainable(node, 1, 2):
        name, groups = str(node.name), attribute_int(node, "group", 1)
        yield from _link((node.inputs[0], 1), readers=(End(name, 1, 1, groups),))
        yield from _link((node.outputs[0], 1), writers=(End(name, 1, 0), *_bias(node)))


def _conv_transpose(node: ir.Node) -> Iterator[Touch]:
    if _trainable(node, 1, 2):
        name, groups = str(node.name), attribute_int(node, "group", 1)
        yield from _link((node.inputs[0], 1), readers=(End(name, 1, 0, groups),))
        yield from _link((node.outputs[0], 1), writers=(End(name, 1, 1, groups), *_bias(node)))


def _gemm(node: ir.Node) -> Iterator[Touch]:
    flipped = attribute_int(node, "transB", 0)
    made, bias = node.outputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    if _trainable(node, 1, 2) and not attribute_int(node, "transA", 0):
        name = str(node.name)
        yield from _link((node.inputs[0], 1), readers=(End(name, 1, 1 if flipped else 0),))
        if bias is None or size(bias, -1) == size(made, 1):
            writers = (End(name, 1, 0 if flipped else 1), *_bias(node))
            yield from _link((made, 1), writers=writers)


def _matmul(node: ir.Node) -> Iterator[Touch]:
    if _trainable(node, 1) and rank(node.inputs[1]) == 2:
        name, made, read = str(node.name), rank(node.outputs[0]), rank(node.inputs[0])
        if read and made:
            yield from _link((node.inputs[0], read - 1), readers=(End(name, 1, 0),))
            yield from _link((node.outputs[0], made - 1), writers=(End(name, 1, 1),))


def _last_axis_norm(node: ir.Node) -> Iterator[Touch]:
    count = rank(node.outputs[0]) or 0
    if count and attribute_int(node, "axis", -1) in (-1, count - 1) and _trainable(node, 1, 2):
        writers = (End(str(node.name), 1, 0), *_bias(node))
        yield from _link((node.outputs[0], count - 1), writers=writers)


def _second_axis_norm(node: ir.Node) -> Iterator[Touch]:
    if _trainable(node, 1, 2):
        yield from _link((node.outputs[0], 1), writers=(End(str(node.name), 1, 0), *_bias(node)))


def _bias(node: ir.Node) -> tuple[End, ...]:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return () if bias is None else (End(str(node.name), 2, (rank(bias) or 1) - 1),)


def _trainable(node: ir.Node, *slots: int) -> bool:
    """Whether inputs are float32 constants, those that are left out set aside."""
    given = [node.inputs[slot] for slot in slots if slot < len(node.inputs)]
    found = [value for value in given if value is not None]
    return bool(found) and all(constant(v) and v.dtype == ir.DataType.FLOAT for v in found)


ROLES: dict[str, Callable[[ir.Node], Iterator[Touch]]] = {
    "Relu": _each_axis,
    "LeakyRelu": _each_axis,
    "Clip": _each_axis,
    "Identity": _each_axis,
    "PRelu": _slope,
    "MaxPool": _second_axis,
    "AveragePool": _second_axis,
    "GlobalAveragePool": _second_axis,
    "GlobalMaxPool": _second_axis,
    "Resize": _resize,
    "Pad": _pad,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Add": _sum,
    "Sub": _sum,
    "Mul": _product,
    "Div": _quotient,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LayerNormalization": _last_axis_norm,
    "RMSNormalization": _last_axis_norm,
    "InstanceNormalization": _second_axis_norm,
    "BatchNormalization": _second_axis_norm,
}
"""By operator type."""
