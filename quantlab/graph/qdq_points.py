"""QuantizeLinear and DequantizeLinear as read: what they quantize, on which grid.

``settle`` first gives a model of any exporter the one form that is read here.  Where a zero point
or an axis is not written, it is what ONNX says it is: UINT8, and axis 1.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.errors import ModelError
from quantlab.graph.normalize import normalize
from quantlab.graph.view import CONVOLUTIONS, SAME_SCALE, STANDARD, attribute_int, rank

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
PAIR = frozenset({QUANTIZE, DEQUANTIZE})
DOMAINS = frozenset({*STANDARD, "com.microsoft"})
"""Where Q/DQ come from; TensorRT's parser takes both alike."""

INTEGER = re.compile(r"QLinear\w+|QGemm|QAttention|ConvInteger|MatMulInteger\w*|DynamicQuantize\w+")
"""Operators that compute in integers themselves, of the standard and of ONNX Runtime."""

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A QuantizeLinear or DequantizeLinear, as read.

    Attributes:
        node: itself.
        quantizer: the QuantizeLinear whose integers it is about: itself, or the one before a
            DequantizeLinear, also behind operators that move integers; None if they are stored
            or fed.
        weights: whether what is quantized is constant.
        dtype: of the integers.
        scale: as stored; None if it is computed at run time.
        scale_type: of the scale as stored, and so of the reals.
        zero: the zero point as stored; None if there is none, or it is computed.
        axis: the attribute; None if it is not written.
    """

    node: ir.Node
    quantizer: ir.Node | None
    weights: bool
    dtype: ir.DataType
    scale: Reals | None
    scale_type: ir.DataType
    zero: Reals | None
    axis: int | None

    @property
    def tensor(self) -> str:
        """Name of the tensor that is quantized, or of the stored integers."""
        first = (self.quantizer or self.node).inputs[0]
        return "" if first is None else str(first.name)

    @property
    def scales(self) -> int:
        """How many scales there are, 0 if they are not known."""
        return 0 if self.scale is None else self.scale.size

    @property
    def channel_axis(self) -> int | None:
        """The axis of a scale a channel; None if the scales fit none.

        Where none is written it is ONNX's default, 1, or 0 if only that fits.
        """
        first = self.node.inputs[0]
        shape = None if first is None or first.shape is None else list(first.shape)
        for axis in (1, 0) if self.axis is None else (self.axis,):
            if shape is None:
                return axis
            inside = -len(shape) <= axis < len(shape)
            if inside and (not isinstance(shape[axis], int) or shape[axis] == self.scales):
                return axis % len(shape)
        return None

    @property
    def output_axis(self) -> int | None:
        """The axis of a layer's output channels in stored weights that it alone reads."""
        uses = list(self.node.outputs[0].uses())
        if self.quantizer is not None or len(uses) != 1 or uses[0].idx != 1:
            return None
        layer = uses[0].node
        if layer.op_type in CONVOLUTIONS:
            grouped = layer.op_type == "ConvTranspose" and attribute_int(layer, "group", 1) > 1
            return None if grouped else int(layer.op_type == "ConvTranspose")
        if layer.op_type == "Gemm" or (
            layer.op_type == "MatMul" and rank(self.node.inputs[0]) == 2
        ):
            return 1 - attribute_int(layer, "transB", 0)
        return None


def settle(model: ir.Model) -> ir.Model:
    """Return a copy in which every node has its own name and scales are plain initializers.

    Exporters compute scales and zero points from constants; Q/DQ themselves stay as they are.

    Raises:
        ModelError: a constant node breaks its operator's rules.
    """
    from onnxscript import optimizer

    settled = normalize(model).model
    try:
        optimizer.fold_constants_ir(settled, should_fold=_keep_pairs)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"constant folding failed: {error.__cause__ or error}") from error
    return normalize(settled).model


def _keep_pairs(node: ir.Node) -> bool | None:
    return False if node.op_type in PAIR else None


def quantized(model: ir.Model) -> tuple[ir.Node, ...]:
    """Return the nodes that make a model one that is quantized already, in graph order.

    A DequantizeLinear alone does not: weights that are stored small are no quantized model.
    """
    nodes = [*model.graph.all_nodes()]
    nodes += [node for function in model.functions.values() for node in function.all_nodes()]
    return tuple(node for node in nodes if node.op_type == QUANTIZE or is_integer(node))


def is_integer(node: ir.Node) -> bool:
    """Whether a node computes in integers by itself."""
    return node.domain in DOMAINS and INTEGER.fullmatch(node.op_type) is not None


def is_pair(node: ir.Node) -> bool:
    """Whether a node is a QuantizeLinear or DequantizeLinear."""
    return node.op_type in PAIR and node.domain in DOMAINS


def points(model: ir.Model) -> Iterator[Point]:
    """Yield every Q/DQ of the main graph, without those inside other nodes, in graph order."""
    yield from (read(node) for node in model.graph if is_pair(node))


def read(node: ir.Node) -> Point:
    """Return a Q or DQ as a point."""
    quantizer = node if node.op_type == QUANTIZE else _before(node.inputs[0])
    root = (quantizer or node).inputs[0]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    axis = node.attributes.get("axis")
    return Point(
        node=node,
        quantizer=quantizer,
        weights=_constant(root) is not None,
        dtype=_dtype(node, zero),
        scale=_constant(node.inputs[1]),
        scale_type=_element_type(node.inputs[1]) or ir.DataType.FLOAT,
        zero=_constant(zero),
        axis=None if axis is None else axis.as_int(),
    )


def alike(left: Point, right: Point) -> bool:
    """Whether two points have the same grid."""
    return (
        left.dtype == right.dtype
        and _equal(left.scale, right.scale)
        and _equal(_zeros(left), _zeros(right))
    )


def _equal(left: Reals | None, right: Reals | None) -> bool:
    if left is None or right is None:
        return False
    return np.array_equal(np.ravel(left), np.ravel(right))


def _zeros(point: Point) -> Reals:
    return np.zeros(point.scales) if point.zero is None else point.zero


def _before(value: ir.Value | None) -> ir.Node | None:
    """Return the QuantizeLinear that made integers, None if they are stored or fed."""
    node = None if value is None else value.producer()
    while node is not None and not is_pair(node):
        source = node.inputs[0] if node.inputs and node.op_type in SAME_SCALE else None
        node = None if source is None else source.producer()
    return node if node is not None and node.op_type == QUANTIZE else None


def _dtype(node: ir.Node, zero: ir.Value | None) -> ir.DataType:
    """Return the integers' type: the zero point's, else the attribute's, else what ONNX says."""
    given = _element_type(zero)
    if given is not None:
        return given
    if node.op_type == DEQUANTIZE:
        before = _before(node.inputs[0])
        own = _element_type(node.inputs[0]) if before is None else read(before).dtype
        return own or ir.DataType.UINT8
    written = node.attributes.get("output_dtype")
    return ir.DataType(written.as_int() if written is not None else 0) or ir.DataType.UINT8


def _element_type(value: ir.Value | None) -> ir.DataType | None:
    if value is None:
        return None
    stored = ir.convenience.get_const_tensor(value)
    return value.dtype if stored is None else stored.dtype


def _constant(value: ir.Value | None) -> Reals | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy().astype(np.float64)
