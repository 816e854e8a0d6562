"""Samples in an .npz file, as ``numpy.savez`` writes it.

One array for each model input, named like it, first axis = sample; or, where samples differ in
shape, an array for each sample, named ``<input>.00000``, ``<input>.00001`` ..., each with a first
axis of 1.  Labels likewise.  Arrays of other names are left alone.

Format: a zip file of .npy members (numpy.lib.format, versions 1 and 2).  Members that are not
compressed are mapped into memory where they lie, so a file may be larger than memory; compressed
ones are decompressed as they are read.  Pickled objects are refused, not loaded.  The checksum of
a mapped member is not computed, because that would read all of it.
"""

import re
import struct
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from quantlab.datasets.base import Array, Sample, Samples
from quantlab.datasets.checks import as_label, check_fit, class_names, convert, same_count
from quantlab.datasets.columns import DAMAGED, Column, Layout, Rows, mapped, streamed
from quantlab.errors import DataError
from quantlab.records import TensorSpec

LOCAL_HEADER = struct.Struct("<26x2H")
"""PKWARE APPNOTE 4.3.7: lengths of the name and the extra field end the 30 fixed bytes."""

LARGEST_COUNT = 1 << 48
"""Elements, zero axes left out: far beyond any file, and far below where NumPy overflows."""

READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

Parts = tuple[Column, ...]
"""The rows of one input: a single array, or one of a row for each sample."""


@dataclass(frozen=True, slots=True)
class Npz:
    """Arrays named after the model's inputs.

    Attributes:
        path: the .npz file.
        labels: name of the labels; a file without "labels" is unlabelled.
        class_names: file of class names, one a line.
    """

    path: Path
    labels: str = "labels"
    class_names: Path | None = None

    @contextmanager
    def open(self, inputs: Sequence[TensorSpec]) -> Iterator[Samples]:
        """Open for a model with these inputs; headers are read and checked, data are not.

        Raises:
            DataError: unreadable file, or names, dtypes, shapes or counts that do not fit.
        """
        names = class_names(self.class_names)
        try:
            archive = zipfile.ZipFile(self.path)
        except DAMAGED as error:
            raise DataError(
                f"cannot read {self.path} as .npz: {error}; write it with numpy.savez"
            ) from error
        with archive:
            columns = _Columns(self.path, archive)
            parts = {spec.name: self._input(columns, spec, inputs) for spec in inputs}
            labels = None if self.labels in parts else columns.find(self.labels)
            if labels is None and self.labels not in ("labels", *parts):
                raise DataError(f"{self.path} has no labels {self.labels!r}; it holds {columns}")
            counts = {name: _rows(found) for name, found in parts.items()}
            if labels is not None:
                counts[self.labels] = _rows(labels)
            count = same_count(counts, str(self.path))
            yield Rows(count, partial(self._samples, inputs, parts, labels), names)

    def _input(self, columns: "_Columns", spec: TensorSpec, inputs: Sequence[TensorSpec]) -> Parts:
        parts = columns.find(spec.name)
        if parts is None:
            others = sorted(columns.members.keys() - {self.labels})
            if len(inputs) == len(others) == 1:
                raise DataError(
                    f"{self.path} holds one array, {others[0]!r}, and the model has one input, "
                    f"{spec.name!r}; rename it: numpy.savez(path, **{{{spec.name!r}: array}})"
                )
            raise DataError(f"{self.path} has no array for input {spec}; it holds {columns}")
        for part in parts:
            check_fit(spec, part.dtype, part.shape[1:], part.origin)
        return parts

    def _samples(
        self,
        inputs: Sequence[TensorSpec],
        parts: dict[str, Parts],
        labels: Parts | None,
        start: int,
        stop: int,
    ) -> Iterator[Sample]:
        streams = [_between(parts[spec.name], start, stop) for spec in inputs]
        targets: Iterator[Array | None] = repeat(None, stop - start)
        if labels is not None:
            targets = _between(labels, start, stop)
        rows = zip(zip(*streams, strict=True), targets, strict=True)
        for index, (arrays, label) in enumerate(rows, start):
            origin = f"{self.path.name}[{index}]"
            yield Sample(
                index,
                {
                    spec.name: convert(array, spec)
                    for spec, array in zip(inputs, arrays, strict=True)
                },
                None if label is None else as_label(label, origin),
                origin,
            )


class _Columns:
    """The arrays of an open .npz file by name."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.buffer = np.memmap(path, mode="r")
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in self.members:
                raise DataError(f"{path}: two arrays are named {name!r}")
            self.members[name] = info

    def __str__(self) -> str:
        names = sorted(self.members)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return (", ".join(map(repr, names[:8])) or "no arrays") + more

    def find(self, name: str) -> Parts | None:
        """Return the array ``name``, or ``name.00000`` and so on; None if there is neither."""
        if name in self.members:
            return (self.column(name),)
        pattern = re.compile(re.escape(name) + r"\.([0-9]{1,18})")
        numbered = sorted(
            (int(match[1]), match[0])
            for match in map(pattern.fullmatch, self.members)
            if match is not None
        )
        for expected, (number, member) in enumerate(numbered):
            if number != expected:
                raise DataError(
                    f"{self.path}: expected {name}.{expected:05}, found {member}; samples are "
                    "numbered from 0 without gaps"
                )
        parts = tuple(self.column(member) for _, member in numbered)
        for part in parts:
            if part.shape[0] != 1:
                raise DataError(
                    f"{part.origin}: expected a first axis of 1, as it is one sample; "
                    f"got shape {part.shape}"
                )
        return parts or None

    def column(self, name: str) -> Column:
        """Return one array, unread.

        Raises:
            DataError: not an array, holds objects, or its size is not what its header says.
        """
        info = self.members[name]
        origin = f"{self.path.name}: {name}"
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise DataError(f"{origin}: encrypted or packed in a way that NumPy does not write")
        try:
            with self.archive.open(info) as file:
                layout = _header(file, origin)
        except DAMAGED as error:
            raise DataError(f"{origin}: damaged; {error}") from error
        if layout.end != info.file_size:
            raise DataError(
                f"{origin}: its header says {layout.shape} {layout.dtype}, {layout.end} bytes, "
                f"but it has {info.file_size}"
            )
        if info.compress_type == zipfile.ZIP_DEFLATED:
            return streamed(partial(self.archive.open, info), layout, origin)
        fixed = bytes(self.buffer[info.header_offset : info.header_offset + LOCAL_HEADER.size])
        start = info.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(fixed))
        inside = Layout(layout.dtype, layout.shape, start + layout.offset, layout.fortran)
        return mapped(self.buffer, inside, origin)


def _header(file: IO[bytes], origin: str) -> Layout:
    """Read the header of a .npy member."""
    try:
        read = READERS[npy.read_magic(file)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers that Python 2 wrote are as good
            shape, fortran, dtype = read(file)
    except KeyError as error:
        raise DataError(f"{origin}: .npy version {error} is for structured arrays") from error
    except (ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise DataError(f"{origin}: not an array that NumPy wrote; {error}") from error
    if dtype.hasobject or dtype.kind == "V" or not dtype.itemsize:
        raise DataError(f"{origin}: holds {dtype}, which is not loaded; store numbers or strings")
    if not shape or min(shape) < 0 or prod(max(axis, 1) for axis in shape) > LARGEST_COUNT:
        raise DataError(f"{origin}: expected a first axis that counts samples, got shape {shape}")
    return Layout(dtype, shape, file.tell(), fortran)


def _between(parts: Parts, start: int, stop: int) -> Iterator[Array]:
    """Return the rows from ``start`` up to ``stop``."""
    if len(parts) == 1:
        return parts[0].rows(start, stop)
    return chain.from_iterable(part.rows(0, 1) for part in parts[start:stop])


def _rows(parts: Parts) -> int:
    return sum(part.shape[0] for part in parts)
