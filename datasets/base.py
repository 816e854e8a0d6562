"""What a dataset is: samples in a fixed order, each fitting the model's inputs.

A dataset (a frozen record made from the config) is opened for the inputs of a model and then
yields samples one at a time; ``batching.batches`` makes batches of them.  Each sample has a place,
counted from 0, and any range of places can be read by itself: that is how the work is divided.

A sample's arrays have no batch axis: an input of shape [N, 1, 28, 28] takes a sample of shape
(1, 28, 28).  An input that has no batch axis at all (a scalar, a recurrent state) takes the whole
array, rank for rank; such samples are run one at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quantlab.records import TensorSpec

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sample.

    Attributes:
        index: its place in the dataset, from 0; a sample that is left out leaves a gap.
        arrays: by input name; dtype as the input's, shape without the batch axis.
        label: class index (an int64 scalar array) or a target array; None if unlabelled.
        origin: where it came from, for messages: "train.npz[17]", "cats/012.jpg".
    """

    index: int
    arrays: Mapping[str, Array]
    label: Array | None
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples of equal shape, stacked.

    Attributes:
        arrays: by input name, ready to feed: shape (size, ...), or the input's own shape where it
            has no batch axis.
        labels: (size, ...) or None.
        indices: (size,) int64, each sample's place in the dataset.
    """

    arrays: Mapping[str, Array]
    labels: Array | None
    indices: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def __str__(self) -> str:
        """Return which samples and shapes, for messages."""
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items())
        return f"samples {self.indices.min()} to {self.indices.max()} ({shapes})"


class Samples(Protocol):
    """An opened dataset."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names by class index, if the dataset knows them."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Origins of samples that ``on_error: skip`` left out so far, with the reason."""
        ...

    @property
    def shardable(self) -> bool:
        """Whether ``part`` finds its start by itself, so that machines can each read their own."""
        ...

    def __len__(self) -> int:
        """Return the number of places; never changes."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """Yield every sample: ``part(0, len(self))``."""
        ...

    def part(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the samples at places ``start <= index < stop``, in order, the same each time.

        A part has all of its places, less the ones that ``on_error: skip`` leaves out.  What lies
        before it is not read, except where data can be read only from their beginning: compressed
        files, and Python functions without ``start`` and ``stop``.

        Raises:
            DataError: unreadable or damaged data, or samples that do not fit.
        """
        ...


@runtime_checkable
class Pictures(Protocol):
    """A dataset that knows how an image file becomes what a model takes."""

    def image(self, path: Path, spec: TensorSpec) -> Array:
        """Return an image as the input takes it, without batch axis.

        Raises:
            DataError: not an image, or one that does not fit.
        """
        ...


class Dataset(Protocol):
    """A source of samples; implementations are frozen dataclasses of their config keys."""

    def open(self, inputs: Sequence[TensorSpec]) -> AbstractContextManager[Samples]:
        """Open for a model with these inputs.

        Raises:
            DataError: missing or unreadable data, or names, dtypes or shapes that do not fit.
        """
        ...
