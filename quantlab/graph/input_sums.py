"""What a layer with constant weights makes of an input that is 1 everywhere: ``W 1``.

It tells what a shift of the layer's input does to its output.  A convolution that pads with zeros
sums fewer taps at the border, so there it is a map over the positions of the output.

Limits: Conv with ``pads`` written out, Gemm, MatMul of a matrix; padded images have a fixed size.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.view import CONVOLUTIONS, attribute_int, constant, rank

Floats = NDArray[np.float64]


def is_plain(node: ir.Node, value: ir.Value) -> bool:
    """Whether ``input_sums`` can tell what a layer makes of ``value``, with a constant bias."""
    weights = weights_of(node)
    if weights is None or node.inputs[0] is not value or node.inputs.count(value) > 1:
        return False
    if len(node.inputs) > 2 and not constant(node.inputs[2]):
        return False
    if node.op_type == "Gemm":
        return not attribute_int(node, "transA", 0)
    if node.op_type == "MatMul":
        return weights.ndim == 2
    auto = node.attributes.get("auto_pad")
    if node.op_type != "Conv" or (auto is not None and auto.as_string() != "NOTSET"):
        return False
    return not any(_numbers(node, "pads", 0)) or _image(value) is not None


def weights_of(node: ir.Node) -> Floats | None:
    """Return the weights of a layer in float64, None if they are not constant."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    known = value.const_value if value is not None and constant(value) else None
    return None if known is None else known.numpy().astype(np.float64)


def output_axis(node: ir.Node) -> int:
    """Return the axis of a layer's weights that its output channels are along."""
    if node.op_type in CONVOLUTIONS:
        return int(node.op_type == "ConvTranspose")
    return 0 if attribute_int(node, "transB", 0) else 1


def input_sums(node: ir.Node) -> Floats:
    """Return ``W 1`` of a plain layer: (channels,), or (channels, ...) where it pads its input."""
    weights = weights_of(node)
    assert weights is not None  # noqa: S101  a plain layer has some
    sums: Floats
    if node.op_type != "Conv":
        alpha = node.attributes.get("alpha")
        sums = weights.sum(axis=1 - output_axis(node))
        return sums if alpha is None else sums * alpha.as_float()
    taps: Floats = weights.sum(axis=1)
    if not any(_numbers(node, "pads", 0)):
        sums = taps.sum(axis=tuple(range(1, taps.ndim)))
        return sums
    for axis, size in enumerate(_image(node.inputs[0]) or ()):
        # Sums up the first axis of the kernel that is left, and appends one of positions.
        taps = np.tensordot(taps, _inside(node, axis, size, taps.shape[1]), axes=(1, 0))
    return taps


def _inside(node: ir.Node, axis: int, size: int, kernel: int) -> Floats:
    """Return (taps, positions) along an axis: 1 where a tap lies inside the image, else 0."""
    pads = _numbers(node, "pads", 0)
    stride, dilation = (_numbers(node, name, 1)[axis] for name in ("strides", "dilations"))
    before, after = pads[axis], pads[axis + len(pads) // 2]
    count = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    place = np.arange(count) * stride - before + dilation * np.arange(kernel)[:, None]
    return ((place >= 0) & (place < size)).astype(np.float64)


def _numbers(node: ir.Node, name: str, default: int) -> list[int]:
    found = node.attributes.get(name)
    weights = rank(node.inputs[1]) or 0
    many = 2 if name == "pads" else 1
    return [default] * (many * (weights - 2)) if found is None else list(found.as_ints())


def _image(value: ir.Value | None) -> list[int] | None:
    """Return the fixed size of a tensor behind its channels, None if it is not."""
    shape = None if value is None or value.shape is None else value.shape[2:]
    fixed = None if shape is None else [n for n in shape if isinstance(n, int) and n > 0]
    return fixed if fixed is not None and shape is not None and len(fixed) == len(shape) else None
