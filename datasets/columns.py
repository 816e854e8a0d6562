"""Arrays that are read a few rows at a time, from mapped memory or from a decompressing stream.

A mapped column is read from any row on, a stream is run through from its beginning.  Nothing is
allocated by what a file claims: a mapped column is checked against the file's length when it is
made, and a stream is read in blocks of about a megabyte until it ends or is complete.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Protocol
from zipfile import BadZipFile

import numpy as np

from quantlab.datasets.base import Array, Sample
from quantlab.errors import DataError

BLOCK = 1 << 20
DAMAGED = (OSError, EOFError, ValueError, NotImplementedError, zlib.error, BadZipFile)
"""What reading a damaged file raises in zipfile, gzip and zlib."""

LARGEST_ROW = 1 << 31
"""Bytes of one compressed sample; ONNX holds no tensor beyond 2 GiB in a message either."""


class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, fewer only at the end."""
        ...


Stream = Callable[[], AbstractContextManager[Readable]]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Rows of equal dtype and shape.

    Attributes:
        origin: where it lies, for messages: "calib.npz: image".
        dtype: as stored.
        shape: (rows, ...).
        blocks: starts a pass; yields arrays (k, ...) that together are the rows from a start up to
            a stop, 0 <= start < stop <= rows.  A pass that goes to the last row checks the end.
    """

    origin: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    blocks: Callable[[int, int], Iterator[Array]]

    def rows(self, start: int, stop: int) -> Iterator[Array]:
        """Yield the rows from ``start`` up to ``stop``, also scalar ones, as arrays."""
        for block in self.blocks(start, stop):
            for row in block:
                yield np.asarray(row)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Samples that a function can start to yield any number of times; none is left out.

    Attributes:
        count: number of samples.
        rows: yields the samples from a start up to a stop, 0 <= start < stop <= count.
        class_names: by class index.
        shardable: as in Samples.
    """

    count: int
    rows: Callable[[int, int], Iterator[Sample]]
    class_names: tuple[str, ...] | None = None
    shardable: bool = True
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return self.part(0, self.count)

    def part(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the samples at places ``start <= index < stop``."""
        start, stop = max(start, 0), min(stop, self.count)
        return self.rows(start, stop) if start < stop else iter(())


@dataclass(frozen=True, slots=True)
class Layout:
    """How a column lies in its bytes: ``prod(shape)`` elements after ``offset`` bytes of header."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int
    fortran: bool = False

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def mapped(buffer: Array, layout: Layout, origin: str) -> Column:
    """Make a column of a memory-mapped file.

    Args:
        buffer: (bytes,) uint8, the file.
        layout: offset from the start of ``buffer``.
        origin: for messages.

    Raises:
        DataError: the file is shorter than the layout says.
    """
    if layout.end > len(buffer):
        raise DataError(
            f"{origin}: truncated; {layout.shape} {layout.dtype} needs {layout.end} bytes, "
            f"the file has {len(buffer)}"
        )
    array: Array = np.ndarray(
        layout.shape,
        layout.dtype,
        buffer=buffer,
        offset=layout.offset,
        order="F" if layout.fortran else "C",
    )
    return Column(
        origin, layout.dtype, layout.shape, lambda start, stop: iter((array[start:stop],))
    )


def streamed(stream: Stream, layout: Layout, origin: str) -> Column:
    """Make a column that is decompressed anew in every pass, from its beginning.

    Raises:
        DataError: stored column by column (Fortran order), or rows beyond ``LARGEST_ROW``.
    """
    if layout.fortran:
        raise DataError(
            f"{origin}: compressed and in Fortran order, so it cannot be read by samples; "
            "store numpy.ascontiguousarray(array), or use numpy.savez"
        )
    row = prod(layout.shape[1:]) * layout.dtype.itemsize
    if row > LARGEST_ROW:
        raise DataError(
            f"{origin}: a sample of {row} bytes; at most {LARGEST_ROW} can be compressed"
        )
    blocks = partial(_decompress, stream, layout, origin)
    return Column(origin, layout.dtype, layout.shape, blocks)


def _decompress(
    stream: Stream, layout: Layout, origin: str, start: int, stop: int
) -> Iterator[Array]:
    count, shape = layout.shape[0], layout.shape[1:]
    size = prod(shape) * layout.dtype.itemsize
    step = max(1, BLOCK // max(size, 1))
    try:
        with stream() as file:
            file.read(layout.offset)
            for first in range(0, stop, step):
                rows = min(step, stop - first)
                data = file.read(rows * size)
                if len(data) < rows * size:
                    raise DataError(
                        f"{origin}: truncated; the header says {count} samples, "
                        f"the data end in sample {first + len(data) // size}"
                    )
                if first + rows > start:
                    block = np.frombuffer(data, layout.dtype).reshape(rows, *shape)
                    yield block[max(start - first, 0) :]
            if stop == count and file.read(1):
                raise DataError(f"{origin}: data go on after the {count} samples of the header")
    except DAMAGED as error:
        raise DataError(f"{origin}: damaged; {error}") from error
