"""Small data files, specs and in-memory samples for the tests of datasets."""

import gzip
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quantlab.datasets import DATASETS
from quantlab.datasets.base import Array, Batch, Sample, Samples
from quantlab.records import TensorSpec
from quantlab.registry import make

IMAGE = TensorSpec("image", "float32", ("N", 1, 4, 3))
TOKENS = TensorSpec("tokens", "int64", ("N", "S"))
MASK = TensorSpec("mask", "bool", ("N", "S"))
PIXELS = TensorSpec("image", "float32", ("N", "C", "H", "W"))
RAW_PIXELS = TensorSpec("image", "uint8", ("N", None, None, None))

Save = Callable[..., Any]
savez: Save = np.savez  # its type takes arrays by name for options
savez_compressed: Save = np.savez_compressed


class Opens(Protocol):
    """Any dataset."""

    def open(self, inputs: Sequence[TensorSpec]) -> AbstractContextManager[Samples]: ...


@dataclass(frozen=True)
class InMemory:
    """Samples that a test made."""

    items: tuple[Sample, ...]
    skipped: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    shardable: bool = True

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.items)

    def part(self, start: int, stop: int) -> Iterator[Sample]:
        return iter(self.items[start:stop])


def in_memory(arrays: Sequence[Mapping[str, Array]]) -> InMemory:
    return InMemory(tuple(Sample(i, each, np.array(i), f"s[{i}]") for i, each in enumerate(arrays)))


def read(dataset: Opens, *inputs: TensorSpec) -> list[Sample]:
    with dataset.open(inputs) as samples:
        return list(samples)


def assert_same(found: Iterable[Sample], expected: Iterable[Sample]) -> None:
    """Check that samples are equal in everything, dtypes included."""
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.origin) == (other.index, other.origin)
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in other.arrays.items():
            np.testing.assert_array_equal(one.arrays[name], array, strict=True)
        assert (one.label is None) == (other.label is None)
        if one.label is not None and other.label is not None:
            np.testing.assert_array_equal(one.label, other.label, strict=True)


def random(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "bool" else 200, shape).astype(dtype)


def idx(array: NDArray[np.uint8]) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_idx(path: Path, array: NDArray[np.uint8]) -> Path:
    path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    return path


def npy(array: Array) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_zip(path: Path, members: Sequence[tuple[str, bytes]], *, packed: bool = False) -> Path:
    """Write members as they are, names that repeat included."""
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def stacked(batches: Sequence[Batch], name: str) -> Array:
    return np.concatenate([batch.arrays[name] for batch in batches])


def save_image(path: Path, pixels: NDArray[np.uint8] | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random((6, 8, 3), "uint8") if pixels is None else pixels).save(path, **options)
    return path


def one_image(path: Path, spec: TensorSpec = RAW_PIXELS, **parameters: Any) -> NDArray[Any]:
    """Return the pixels of the only image in a folder."""
    (sample,) = read(make("dataset", DATASETS, "image_folder", {"path": path, **parameters}), spec)
    return sample.arrays["image"]
