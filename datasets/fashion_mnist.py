"""Greyscale images in IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

Format (yann.lecun.com/exdb/mnist): big-endian; two zero bytes, 8 for unsigned bytes, the number of
axes; the length of each axis as uint32; then the bytes, last axis fastest.
"""

import gzip
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from quantlab.datasets.base import Array, Sample, Samples
from quantlab.datasets.checks import as_label, check_fit, class_names, only_input, same_count
from quantlab.datasets.columns import DAMAGED, Column, Layout, Readable, Rows, mapped, streamed
from quantlab.datasets.images import decode
from quantlab.datasets.pixels import Normalization
from quantlab.errors import DataError
from quantlab.records import TensorSpec

GZIP = b"\x1f\x8b"
UNSIGNED_BYTES = b"\x00\x00\x08"

SHAPES = "images of height x width fit [N, 1, h, w], [N, h, w, 1], [N, h, w] and [N, h * w]"


@dataclass(frozen=True, slots=True)
class FashionMnist:
    """Images of any size, fitted to the layout of the model's input.

    An input of shape [N, 1, height, width], [N, height, width, 1], [N, height, width] or
    [N, height * width] takes them, in the order of this list where axes are dynamic.

    Attributes:
        images: IDX file of 3 axes: image, row, column.
        labels: IDX file of 1 axis.
        class_names: file of class names, one a line.
        scale: a pixel of 0 to 255 becomes (pixel * scale - mean) / std; None is 1/255 for a
            floating-point input and 1 for a uint8 one.
        mean: see ``scale``.
        std: see ``scale``.
    """

    images: Path
    labels: Path | None = None
    class_names: Path | None = None
    scale: float | None = None
    mean: float = 0.0
    std: float = 1.0

    @contextmanager
    def open(self, inputs: Sequence[TensorSpec]) -> Iterator[Samples]:
        """Open for a model with one input.

        Raises:
            ConfigError: ``scale``, ``mean`` or ``std`` cannot be used.
            DataError: unreadable files, or images that do not fit the input.
        """
        spec = only_input(inputs, "fashion_mnist")
        names = class_names(self.class_names)
        normalization = Normalization(self.scale, (self.mean,), (self.std,))
        normalization.check(channels=1)
        normalization.check_input(spec)
        images = read_idx(self.images, axes=3)
        labels = None if self.labels is None else read_idx(self.labels, axes=1)
        counts = {self.images.name: images.shape[0]}
        if labels is not None and self.labels is not None:
            counts[self.labels.name] = labels.shape[0]
        count = same_count(counts, str(self.images.parent))
        shape = _layout(spec, images.shape[1:])
        check_fit(spec, np.dtype(spec.dtype), shape, images.origin, hint=SHAPES)

        def samples(start: int, stop: int) -> Iterator[Sample]:
            targets: Iterator[Array | None] = repeat(None, stop - start)
            if labels is not None:
                targets = labels.rows(start, stop)
            rows = zip(images.rows(start, stop), targets, strict=True)
            for index, (pixels, label) in enumerate(rows, start):
                origin = f"{images.origin}[{index}]"
                array = normalization.apply(pixels.astype(np.uint8).reshape(shape), spec.dtype)
                target = None if label is None else as_label(label, origin)
                yield Sample(index, {spec.name: array}, target, origin)

        yield Rows(count, samples, names)

    def image(self, path: Path, spec: TensorSpec) -> Array:
        """Return any image, in grey, as the input takes it; see ``Pictures.image``."""
        normalization = Normalization(self.scale, (self.mean,), (self.std,))
        normalization.check_input(spec)
        pixels = np.asarray(decode(path, str(path), "L"), np.uint8)
        shape = _layout(spec, pixels.shape)
        check_fit(spec, np.dtype(spec.dtype), shape, str(path), hint=SHAPES)
        return normalization.apply(pixels.reshape(shape), spec.dtype)


def read_idx(path: Path, *, axes: int) -> Column:
    """Return the rows of an IDX file of unsigned bytes; a plain file is mapped into memory.

    Raises:
        DataError: unreadable, another type or number of axes, or a size other than the header's.
    """
    head = 4 + 4 * axes
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP
        with _opened(path, zipped=zipped) as file:
            header = file.read(head)
        size = path.stat().st_size
    except DAMAGED as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if header[:4] != UNSIGNED_BYTES + bytes([axes]) or len(header) < head:
        raise DataError(
            f"{path}: expected an IDX file of unsigned bytes with {axes} axes, "
            f"which starts with 00 00 08 {axes:02x}; got {header[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{axes}I", header[4:])
    if 0 in shape:
        raise DataError(f"{path}: holds nothing, its shape is {shape}")
    layout = Layout(np.dtype(np.uint8), shape, head)
    if zipped:
        return streamed(partial(_opened, path, zipped=True), layout, path.name)
    if size != layout.end:
        raise DataError(f"{path}: its header says {shape}, {layout.end} bytes, but it has {size}")
    return mapped(np.memmap(path, mode="r"), layout, path.name)


def _opened(path: Path, *, zipped: bool) -> AbstractContextManager[Readable]:
    return gzip.GzipFile(path) if zipped else path.open("rb")


def _layout(spec: TensorSpec, size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that an image takes for this input; the first, if none fits."""
    height, width = size
    shapes: list[tuple[int, ...]] = [
        (1, height, width),
        (height, width, 1),
        (height, width),
        (height * width,),
    ]
    for shape in shapes:
        pairs = zip(spec.shape[1:], shape, strict=False)
        if len(shape) == len(spec.shape) - 1 and all(
            axis == size or not isinstance(axis, int) for axis, size in pairs
        ):
            return shape
    return shapes[0]
