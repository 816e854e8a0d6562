"""What a layer multiplies its weights with: for an output position, the inputs that it sums up.

For a product, rows of its input.  For a convolution, patches: tap k of output position p reads the
input at ``p stride - pad + k dilation``; of a transposed one at ``(p + pad - k dilation) / stride``
where that is whole.  What lies outside the input is 0.

Limits: attributes ``auto_pad`` and ``output_shape`` are not read, nor batches of matrices;
        ``readable`` tells.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.view import attribute_int

Index = NDArray[np.int64]


def readable(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Whether this module can tell what a layer with weights of ``shape`` reads."""
    if node.op_type in ("MatMul", "Gemm"):
        return len(shape) == 2 and not attribute_int(node, "transA", 0)
    padding = node.attributes.get("auto_pad")
    plain = padding is None or padding.as_string() == "NOTSET"
    return plain and len(shape) > 2 and "output_shape" not in node.attributes


def rows(node: ir.Node, shape: tuple[int, ...]) -> Index:
    """Return where the weights of each output channel are: (groups, channels, inputs) of W.ravel().

    Args:
        node: readable.
        shape: of its weights.
    """
    places = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    if node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not attribute_int(node, "transB", 0)
    ):
        return places.T[None]
    if node.op_type == "Gemm":
        return places[None]
    groups = attribute_int(node, "group", 1)
    parts = places.reshape(groups, shape[0] // groups, shape[1], -1)
    if node.op_type == "ConvTranspose":
        parts = parts.swapaxes(1, 2)
    return parts.reshape(groups, parts.shape[1], -1)


def patches(
    node: ir.Node,
    shape: tuple[int, ...],
    x: NDArray[np.float32],
    *,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return what is read for sampled output positions: (groups, n, inputs), as ``rows`` has them.

    Args:
        node: readable.
        shape: of its weights.
        x: input 0 of the node.
        count: positions of each sample; of a product, rows of each, at most as many as there are.
        rng: chooses the positions.
    """
    if node.op_type in ("MatMul", "Gemm"):
        flat = x.reshape(-1, x.shape[-1])
        n = min(len(flat), count * len(x))
        return flat[rng.choice(len(flat), n, replace=False)][None]
    sample = np.repeat(np.arange(len(x)), count)
    source, inside = np.zeros((sample.size, 1), np.int64), np.ones((sample.size, 1), bool)
    for axis, size in enumerate(x.shape[2:]):
        index, valid = _sources(node, axis, (size, shape[2 + axis]), rng=rng, count=sample.size)
        source = (source[:, :, None] * size + index[:, None, :]).reshape(sample.size, -1)
        inside = (inside[:, :, None] & valid[:, None, :]).reshape(sample.size, -1)
    groups, channels = attribute_int(node, "group", 1), x.shape[1]
    read = x.reshape(*x.shape[:2], -1)[sample[:, None], :, np.where(inside, source, 0)]
    read = np.where(inside[:, :, None], read, np.float32(0))
    parts = read.reshape(sample.size, -1, groups, channels // groups).transpose(2, 0, 3, 1)
    return parts.reshape(groups, sample.size, -1)


def _sources(
    node: ir.Node, axis: int, sizes: tuple[int, int], *, rng: np.random.Generator, count: int
) -> tuple[Index, NDArray[np.bool_]]:
    """Return the input position of each tap along an axis at random outputs, and if it is inside.

    Args:
        node: a convolution.
        axis: of the image, 0 for the first.
        sizes: of the input, and of the kernel, along it.
        rng: chooses the positions.
        count: how many.
    """
    size, kernel = sizes
    stride, dilation = _at(node, "strides", axis, 1), _at(node, "dilations", axis, 1)
    before, after = _at(node, "pads", axis, 0), _at(node, "pads", axis - _axes(node), 0)
    taps, reach = np.arange(kernel) * dilation, (kernel - 1) * dilation + 1
    if node.op_type == "Conv":
        outputs = (size + before + after - reach) // stride + 1
        index = rng.integers(0, outputs, count)[:, None] * stride - before + taps
        whole = np.ones(index.shape, bool)
    else:
        extra = _at(node, "output_padding", axis, 0)
        outputs = (size - 1) * stride + reach + extra - before - after
        spread = rng.integers(0, outputs, count)[:, None] + before - taps
        index, whole = spread // stride, spread % stride == 0
    return index, whole & (index >= 0) & (index < size)


def _axes(node: ir.Node) -> int:
    pads = node.attributes.get("pads")
    return 0 if pads is None else len(pads.as_ints()) // 2


def _at(node: ir.Node, name: str, index: int, default: int) -> int:
    found = node.attributes.get(name)
    return default if found is None else int(found.as_ints()[index])
