"""What a layer with constant weights makes of an input that is 1 everywhere: ``W 1``.

It tells what a shift of the layer's input does to its output.  A convolution that pads with zeros
sums fewer taps at the border, so there it is a map over the positions of the output.

Limits: Conv, Gemm and MatMul that are ``readable``; padded images have a fixed size.
"""

from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.view import CONVOLUTIONS, PRODUCTS, attribute_int, constant, factor
from quantlab.graph.windows import readable, windows

Floats = NDArray[np.float64]


def is_plain(node: ir.Node, value: ir.Value) -> bool:
    """Whether ``input_sums`` can tell what a layer makes of ``value``, with a constant bias."""
    weights = weights_of(node)
    if weights is None or node.inputs[0] is not value or node.inputs.count(value) > 1:
        return False
    if len(node.inputs) > 2 and not constant(node.inputs[2]):
        return False
    if node.op_type not in PRODUCTS | {"Conv"} or not readable(node, weights.shape):
        return False
    return node.op_type in PRODUCTS or not _padded(node) or _image(value) is not None


def weights_of(node: ir.Node) -> NDArray[np.floating] | None:
    """Return the weights of a layer, None if they are not constant."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    known = value.const_value if value is not None and constant(value) else None
    return None if known is None else known.numpy()


def output_axis(node: ir.Node) -> int:
    """Return the axis of a layer's weights that its output channels are along."""
    if node.op_type in CONVOLUTIONS:
        return int(node.op_type == "ConvTranspose")
    return 0 if attribute_int(node, "transB", 0) else 1


def elements(node: ir.Node) -> int:
    """Return how many elements ``input_sums`` has."""
    weights = weights_of(node)
    assert weights is not None  # noqa: S101  a plain layer has some
    channels = int(weights.shape[output_axis(node)])
    if node.op_type != "Conv" or not _padded(node):
        return channels
    sizes = _image(node.inputs[0]) or []
    placed = zip(windows(node, weights.shape), sizes, strict=True)
    return channels * prod(window.positions(size) for window, size in placed)


def input_sums(node: ir.Node) -> Floats:
    """Return ``W 1`` of a plain layer: (channels,), or (channels, ...) where it pads its input."""
    stored = weights_of(node)
    assert stored is not None  # noqa: S101  a plain layer has some
    weights = stored.astype(np.float64)
    sums: Floats
    if node.op_type != "Conv":
        sums = factor(node) * weights.sum(axis=1 - output_axis(node))
        return sums
    taps: Floats = weights.sum(axis=1)
    if not _padded(node):
        sums = taps.sum(axis=tuple(range(1, taps.ndim)))
        return sums
    sizes = _image(node.inputs[0]) or []
    for size, window in zip(sizes, windows(node, weights.shape), strict=True):
        places = window.taps(np.arange(window.positions(size)))
        inside = ((places >= 0) & (places < size)).astype(np.float64)
        # Sums up the first axis of the kernel that is left, and appends one of positions.
        taps = np.tensordot(taps, inside, axes=(1, 1))
    return taps


def _padded(node: ir.Node) -> bool:
    pads = node.attributes.get("pads")
    return pads is not None and any(pads.as_ints())


def _image(value: ir.Value | None) -> list[int] | None:
    """Return the fixed size of a tensor behind its channels, None if it is not."""
    shape = None if value is None or value.shape is None else value.shape[2:]
    fixed = None if shape is None else [n for n in shape if isinstance(n, int) and n > 0]
    return fixed if fixed is not None and shape is not None and len(fixed) == len(shape) else None
