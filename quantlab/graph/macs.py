"""Multiplications of a layer with constant weights, for saying what share of the work is where.

A weight is used once for each position of the output that it is summed into: Conv has one use an
output pixel, ConvTranspose one an input pixel, Gemm and MatMul one a row.  Per sample: an open
first axis, as any other open axis, counts as 1.
"""

from collections.abc import Iterable
from math import prod

import onnx_ir as ir

from quantlab.graph.view import CONVOLUTIONS, PRODUCTS, attribute_int, constant

Dim = int | ir.SymbolicDim


def macs(node: ir.Node) -> int | None:
    """Return multiply-accumulates a sample; None without constant weights or known shapes."""
    if node.op_type not in CONVOLUTIONS | PRODUCTS or not constant(node.inputs[1]):
        return None
    weight, left, made = node.inputs[1], node.inputs[0], node.outputs[0]
    if weight is None or weight.const_value is None or left is None or left.shape is None:
        return None
    if node.op_type in PRODUCTS:
        rows = left.shape[1:] if attribute_int(node, "transA", 0) else left.shape[:-1]
        return _count(rows) * weight.const_value.size
    pixels = made.shape if node.op_type == "Conv" else left.shape
    if pixels is None:
        return None
    return _count(pixels[2:]) * _count(pixels[:1]) * weight.const_value.size


def _count(dims: Iterable[Dim]) -> int:
    return prod(dim for dim in dims if isinstance(dim, int) and dim >= 0)  # -1 is an open axis too
