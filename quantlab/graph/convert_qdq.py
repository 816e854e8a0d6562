"""Converting Q/DQ that other tools wrote to what TensorRT takes.

``covering`` says what grid a tensor gets.  INT32 biases become floats.  Where a grid begins at 0
the tensor is also cut off at 0 by a Relu: ONNX Runtime's quantizer, among others, leaves a Relu
out where the zero point does its work, and a grid that is symmetric would let negative values
through.  TensorRT fuses that Relu into the layer before.

Limits: saturation above 0 or at a negative end moves out to the ends of the new grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.covering import covering, growth, real, requantized, span
from quantlab.graph.editor import Editor
from quantlab.graph.foreign_qdq import Finding
from quantlab.graph.passes import copy
from quantlab.graph.qdq_points import QUANTIZE, Point, points, read
from quantlab.graph.view import MOVING, is_average
from quantlab.qparams import QParams, dequantize

NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp"})
"""Operators behind which a Relu changes nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """What converting does to one tensor.

    Attributes:
        tensor: its name.
        growth: new step over old step, the largest of all channels; 1 where nothing is lost.
        relu: whether it is cut off at 0 by a Relu from now on.
        signal, noise: sums over stored weights of their squares and of the squared differences;
            both 0 for activations, whose values are not known here.
    """

    tensor: str
    growth: float
    relu: bool = False
    signal: float = 0.0
    noise: float = 0.0


def convert(model: ir.Model, findings: Sequence[Finding]) -> ir.Model:
    """Return a model in which the tensors of ``findings`` are quantized as TensorRT does it.

    Args:
        model: settled and checked; stays as it is.
        findings: of ``check``, all or some; each tensor is converted whole.

    Raises:
        ModelError: one of them cannot be converted; says which, and why.
    """
    lost = [finding for finding in findings if not finding.convertible]
    if lost:
        raise ModelError(
            f"{len(lost)} of {len(findings)} findings cannot be converted, the first is "
            f"{lost[0].op} {lost[0].node!r} of {lost[0].tensor!r}: {lost[0].found}; "
            f"{lost[0].remedy}"
        )
    editor = Editor(copy(model))
    wanted = _wanted(editor.model, findings)
    cut = [point for point in wanted if _needs_relu(point)]  # asked before any grid is changed
    for point in wanted:
        if point.dtype == ir.DataType.INT32:
            _store_floats(editor, point)
        elif point.quantizer is None:
            integers, params = requantized(point)
            _set_inputs(point.node, 0, editor.constant(f"{point.tensor}_int8", integers))
            _set_grid(editor, point, params)
        else:
            _set_grid(editor, point, covering(point))
    for point in cut:
        _cut_off(editor, point)
    for value in list(editor.model.graph.initializers.values()):
        editor.remove_unused(value)
    return editor.model


def changes(model: ir.Model, findings: Sequence[Finding]) -> tuple[Change, ...]:
    """Return what ``convert`` does to each tensor, in graph order."""
    found: dict[str, Change] = {}
    for point in _wanted(model, findings):
        if point.dtype == ir.DataType.INT32:
            made = Change(point.tensor, 1.0)
        elif point.quantizer is None:
            made = _stored_again(point)
        else:
            made = Change(point.tensor, growth(point, covering(point)), _needs_relu(point))
        found.setdefault(point.tensor, made)
    return tuple(found.values())


def as_tensorrt_reads(model: ir.Model) -> ir.Model:
    """Return a model that computes what TensorRT makes of UINT8 with zero point 0: INT8.

    Args:
        model: settled; stays as it is.
    """
    editor = Editor(copy(model))
    for point in list(points(editor.model)):
        plain = point.zero is None or not np.any(point.zero)
        if point.dtype == ir.DataType.UINT8 and point.quantizer is not None and plain:
            zero = np.zeros(() if point.scale is None else point.scale.shape, np.int8)
            _set_inputs(point.node, 2, editor.constant(f"{point.tensor}_zero_point", zero))
            _retype(point)
    return editor.model


def _retype(point: Point) -> None:
    """Make the integers between a QuantizeLinear and ``point`` INT8."""
    node: ir.Node | None = point.node
    while node is not None and node is not point.quantizer:
        value = _input(node, 0)
        value.dtype = ir.DataType.INT8
        node = value.producer()
    if node is not None:
        node.outputs[0].dtype = ir.DataType.INT8


def _wanted(model: ir.Model, findings: Sequence[Finding]) -> list[Point]:
    tensors = {finding.tensor for finding in findings}
    return [point for point in points(model) if point.tensor in tensors]


def _stored_again(point: Point) -> Change:
    integers, params = requantized(point)
    before = real(point)
    noise = np.square(dequantize(integers, params).astype(np.float64) - before).sum()
    signal = np.square(before).sum()
    return Change(point.tensor, growth(point, params), signal=float(signal), noise=float(noise))


def _needs_relu(point: Point) -> bool:
    """Whether a QuantizeLinear cuts off at 0 what could be negative."""
    if point.node is not point.quantizer or point.scales == 0:
        return False
    lowest, highest = span(point)
    begins = not lowest.any() and bool(highest.any())
    return begins and not _never_negative(point.node.inputs[0])


def _never_negative(value: ir.Value | None) -> bool:
    """Whether a tensor is known to hold nothing below 0."""
    node = None if value is None else value.producer()
    if node is None:
        return False
    if node.op_type == "DequantizeLinear":
        point = read(node)
        return point.scales > 0 and point.dtype in _EIGHT and not span(point)[0].any()
    if node.op_type in MOVING | {"MaxPool"} or is_average(node):
        return _never_negative(node.inputs[0])
    if node.op_type in ("Add", "Mul", "Concat"):
        return all(_never_negative(source) for source in node.inputs)
    return node.op_type in NEVER_NEGATIVE


_EIGHT = (ir.DataType.INT8, ir.DataType.UINT8)


def _cut_off(editor: Editor, point: Point) -> None:
    before = _input(point.node, 0)
    after = editor.insert("Relu", (before,), f"{point.tensor}_relu", before=point.node)
    after.type, after.shape = before.type, before.shape
    point.node.replace_input_with(0, after)


def _store_floats(editor: Editor, point: Point) -> None:
    floats = real(point).astype(point.scale_type.numpy())
    stored = editor.constant(f"{point.tensor}_float", floats)
    ir.convenience.replace_all_uses_with(point.node.outputs[0], stored)
    editor.model.graph.remove(point.node, safe=True)


def _set_grid(editor: Editor, point: Point, params: QParams) -> None:
    node, tensor = point.node, point.tensor
    scale = params.scale.astype(point.scale_type.numpy())
    zero = editor.constant(f"{tensor}_zero_point", params.zero_point)
    _set_inputs(node, 1, editor.constant(f"{tensor}_scale", scale), zero)
    node.attributes.pop("axis", None)
    node.attributes.pop("output_dtype", None)  # the zero point says it
    if params.axis is not None:
        node.attributes["axis"] = ir.AttrInt64("axis", params.axis)
    if node.op_type == QUANTIZE:
        node.outputs[0].type = zero.type


def _set_inputs(node: ir.Node, start: int, *values: ir.Value) -> None:
    """Replace a node's inputs from ``start`` on; a zero point may be one more than it had."""
    if len(node.inputs) < start + len(values):
        node.resize_inputs(start + len(values))
    for index, value in enumerate(values, start):
        node.replace_input_with(index, value)


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise AssertionError(f"{node.name}: ONNX asks for input {index}")
    return value
