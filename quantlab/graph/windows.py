"""Where a layer with constant weights reads its input, told from its attributes.

Along each axis of an image, tap k of a convolution's output position p reads the input at
``p stride - before + k dilation``; ONNX has the padding as all befores, then all afters.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.view import MATRIX, PRODUCTS, attribute_int

Index = NDArray[np.int64]


def readable(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Whether the attributes tell what a layer with weights of ``shape`` reads.

    They do not where ONNX works out padding from sizes (``auto_pad``, ``output_shape``), and the
    rows of a transposed input and stacks of matrices are told by no one here.
    """
    if node.op_type in PRODUCTS:
        return len(shape) == MATRIX and not attribute_int(node, "transA", 0)
    padding = node.attributes.get("auto_pad")
    plain = padding is None or padding.as_string() == "NOTSET"
    return plain and len(shape) > MATRIX and "output_shape" not in node.attributes


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's taps along one axis of the image.

    Attributes:
        kernel: taps.
        stride: of the output, in positions of the input; transposed, the other way round.
        dilation: between taps.
        before, after: padding.
        extra: positions that a transposed convolution adds behind.
    """

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    extra: int

    @property
    def reach(self) -> int:
        """Positions from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    def positions(self, size: int) -> int:
        """Return the output positions of a Conv over ``size`` of the input."""
        return (size + self.before + self.after - self.reach) // self.stride + 1

    def taps(self, outputs: Index) -> Index:
        """Return where a Conv's output positions read: (n, kernel), outside the input too."""
        return outputs[:, None] * self.stride - self.before + np.arange(self.kernel) * self.dilation


def windows(node: ir.Node, shape: tuple[int, ...]) -> tuple[Window, ...]:
    """Return a convolution's window along each axis of the image.

    Args:
        node: readable.
        shape: of its weights.
    """
    kernel = shape[MATRIX:]
    count = len(kernel)
    pads = _integers(node, "pads", [0] * 2 * count)
    columns = (
        kernel,
        _integers(node, "strides", [1] * count),
        _integers(node, "dilations", [1] * count),
        pads[:count],
        pads[count:],
        _integers(node, "output_padding", [0] * count),
    )
    return tuple(map(Window, *columns))


def _integers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    found = node.attributes.get(name)
    return default if found is None else list(found.as_ints())
