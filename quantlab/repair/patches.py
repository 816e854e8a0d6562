"""What a layer multiplies its weights with: for an output position, the inputs that it sums up.

For a product, rows of its input.  For a convolution, patches (``graph/windows.py``); of a
transposed one, tap k of output position p reads the input at
``(p + before - k dilation) / stride`` where that is whole.  What lies outside the input is 0.
"""

from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.view import PRODUCTS, attribute_int
from quantlab.graph.windows import Index, Window, windows


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


def row_shape(node: ir.Node, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of ``rows``, without making them."""
    count = prod(shape)
    if node.op_type in PRODUCTS:
        channels = shape[0 if attribute_int(node, "transB", 0) else 1]
        return 1, channels, count // channels
    groups = attribute_int(node, "group", 1)
    channels = shape[1] if node.op_type == "ConvTranspose" else shape[0] // groups
    return groups, channels, count // (groups * channels)


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
    sources = _spread if node.op_type == "ConvTranspose" else _gathered
    for size, window in zip(x.shape[2:], windows(node, shape), strict=True):
        index, valid = sources(window, size, rng=rng, count=sample.size)
        source = (source[:, :, None] * size + index[:, None, :]).reshape(sample.size, -1)
        inside = (inside[:, :, None] & valid[:, None, :]).reshape(sample.size, -1)
    groups, channels = attribute_int(node, "group", 1), x.shape[1]
    read = x.reshape(*x.shape[:2], -1)[sample[:, None], :, np.where(inside, source, 0)]
    read = np.where(inside[:, :, None], read, np.float32(0))
    parts = read.reshape(sample.size, -1, groups, channels // groups).transpose(2, 0, 3, 1)
    return parts.reshape(groups, sample.size, -1)


def _gathered(
    window: Window, size: int, *, rng: np.random.Generator, count: int
) -> tuple[Index, NDArray[np.bool_]]:
    """Return what the taps of ``count`` random outputs read along an axis, and if it is inside."""
    index = window.taps(rng.integers(0, window.positions(size), count))
    return index, (index >= 0) & (index < size)


def _spread(
    window: Window, size: int, *, rng: np.random.Generator, count: int
) -> tuple[Index, NDArray[np.bool_]]:
    """Return the same of a transposed convolution."""
    outputs = (size - 1) * window.stride + window.reach + window.extra
    places = rng.integers(0, outputs - window.before - window.after, count)[:, None]
    taps = places + window.before - np.arange(window.kernel) * window.dilation
    index = taps // window.stride
    return index, (taps % window.stride == 0) & (index >= 0) & (index < size)
