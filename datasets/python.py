"""Batches from a Python function of the user's.

    dataset: {kind: python, function: "loader.py:batches", arguments: {split: train}}

The function runs with the rights of whoever runs the config: a config that names one is a program,
to be trusted like one.  What it raises is not caught: its author needs the traceback.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quantlab import functions
from quantlab.datasets.base import Array, Sample, Samples
from quantlab.datasets.checks import as_label, check_fit, class_names, convert, same_count
from quantlab.datasets.columns import Rows
from quantlab.errors import DataError
from quantlab.records import TensorSpec

Source = Callable[..., object]


@dataclass(frozen=True, slots=True)
class PythonDataset:
    """A function that yields batches of any sizes.

    A batch is a mapping from input name to array, first axis = sample, with ``labels`` if there
    are any; for a model with one input also its array alone, or a tuple of it and the labels.
    The function is called anew for each pass and must yield the same again; it is run through once
    on opening, to count and check the samples.

    Attributes:
        function: "package.module:function", or "file.py:function" with the file in ``folder``.
        arguments: keyword arguments of the function.
        folder: where a relative file is looked for; the config's folder if left out.
        class_names: file of class names, one a line.
    """

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    class_names: Path | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError if ``function`` is not of its form."""
        functions.split("python", self.function)

    @contextmanager
    def open(self, inputs: Sequence[TensorSpec]) -> Iterator[Samples]:
        """Load the function and run through its batches once.

        Raises:
            ConfigError: the function cannot be loaded.
            DataError: its batches do not fit, or differ in number from pass to pass.
        """
        names = class_names(self.class_names)
        source = functions.load("python", self.function, self.folder)
        count = sum(1 for _ in self._samples(source, inputs))

        def again() -> Iterator[Sample]:
            seen = 0
            for sample in self._samples(source, inputs):
                seen += 1
                if seen > count:
                    break
                yield sample
            if seen != count:
                more = "more" if seen > count else f"{seen}"
                raise DataError(
                    f"{self.function} yielded {count} samples at first and {more} in another "
                    "pass; it must yield the same each time it is called"
                )

        yield Rows(count, again, names)

    def _samples(self, source: Source, inputs: Sequence[TensorSpec]) -> Iterator[Sample]:
        index = 0
        yielded = source(**self.arguments)
        if not isinstance(yielded, Iterable):
            raise DataError(f"{self.function} returned {type(yielded).__name__}, not batches")
        for number, batch in enumerate(yielded):
            origin = f"{self.function} batch {number}"
            arrays, labels = _arrays(batch, inputs, origin)
            counts = {name: len(array) for name, array in arrays.items()}
            if labels is not None:
                counts["labels"] = len(labels)
            for row in range(same_count(counts, origin)):
                at = f"{origin}[{row}]"
                yield Sample(
                    index,
                    {spec.name: np.asarray(arrays[spec.name][row]) for spec in inputs},
                    None if labels is None else as_label(np.asarray(labels[row]), at),
                    at,
                )
                index += 1


def _arrays(
    batch: object, inputs: Sequence[TensorSpec], origin: str
) -> tuple[dict[str, Array], Array | None]:
    """Return a batch's arrays by input name, and its labels, checked and copied.

    Copied, because a generator may fill the same memory again.
    """
    given = _named(batch, inputs, origin)
    names = [spec.name for spec in inputs]
    for name in names:
        if name not in given:
            raise DataError(f"{origin}: nothing for input {name!r}; got {_listed(given)}")
    unknown = given.keys() - {*names, "labels"}
    if unknown:
        raise DataError(f"{origin}: {_listed(unknown)} is no input of the model ({_listed(names)})")
    arrays = {name: _array(value, name, origin) for name, value in given.items()}
    for spec in inputs:
        array = arrays[spec.name]
        check_fit(spec, array.dtype, array.shape[1:], f"{origin}: {spec.name}")
        arrays[spec.name] = convert(array, spec)
    labels = None if "labels" in names else arrays.pop("labels", None)
    return arrays, labels


def _named(batch: object, inputs: Sequence[TensorSpec], origin: str) -> Mapping[str, object]:
    if isinstance(batch, Mapping):
        return batch
    if len(inputs) != 1:
        raise DataError(
            f"{origin}: expected a mapping from input name to array, got {type(batch).__name__}"
        )
    if not isinstance(batch, tuple):
        return {inputs[0].name: batch}
    if len(batch) != 2:
        raise DataError(f"{origin}: expected an array and labels, got a tuple of {len(batch)}")
    return {inputs[0].name: batch[0], "labels": batch[1]}


def _array(value: object, name: str, origin: str) -> Array:
    try:
        array: Array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{origin}: {name!r} does not convert to an array; {error}") from error
    if array.dtype.hasobject or not array.ndim:
        raise DataError(
            f"{origin}: expected an array with a first axis that counts samples for {name!r}, got "
            f"{type(value).__name__} of dtype {array.dtype} and shape {array.shape}"
        )
    return array


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(repr, names))) or "nothing"
