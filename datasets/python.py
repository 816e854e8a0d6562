"""Batches from a Python function of the user's.

    dataset: {kind: python, function: "loader.py:batches", arguments: {split: train}}

The function runs with the rights of whoever runs the config: a config that names one is a program,
to be trusted like one.  What it raises is not caught: its author needs the traceback.

A function that can begin anywhere takes ``start`` and ``stop``:

    def batches(split, start=0, stop=None):

It is then called with them and yields the samples at places start <= index < stop and no others,
cut into batches as it likes; ``stop`` is None on the first call, which goes to the end.  A call
for a single place follows, so that a function that does something else is refused on opening.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
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

Places = tuple[int, int | None]
"""Start and stop; None is the end."""


@dataclass(frozen=True, slots=True)
class PythonDataset:
    """A function that yields batches of any sizes.

    A batch is a mapping from input name to array, first axis = sample, with ``labels`` if there
    are any; for a model with one input also its array alone, or a tuple of it and the labels.
    The function is called anew for each pass and must yield the same again; it is run through once
    on opening, to count and check the samples.

    A function with parameters ``start`` and ``stop``, by name and neither of them in ``arguments``,
    is asked for the places of each part; another is run through from its beginning, which is no way
    to share its samples out: ``shardable`` is False.

    Attributes:
        function: "package.module:function", or "file.py:function" with the file in ``folder``.
        arguments: keyword arguments of the function.  With ``start`` or ``stop`` among them these
            mean what the function takes them for.
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
            DataError: its batches do not fit, or are not the samples asked for in number.
        """
        names = class_names(self.class_names)
        source = functions.load("python", self.function, self.folder)
        shardable = self._begins_anywhere(source)
        places: Places | None = (0, None) if shardable else None
        count, second = 0, None
        for sample in self._samples(source, inputs, places):
            count += 1
            if sample.index == 1:
                second = sample
        if shardable and second is not None:
            self._check_place(source, inputs, count, second)
        rows = partial(self._asked if shardable else self._run_through, source, inputs, count)
        yield Rows(count, rows, names, shardable)

    def _begins_anywhere(self, source: Source) -> bool:
        try:
            parameters = inspect.signature(source).parameters
        except (ValueError, TypeError):  # some builtins have none
            return False
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return all(
            name in parameters and parameters[name].kind in named and name not in self.arguments
            for name in ("start", "stop")
        )

    def _check_place(
        self, source: Source, inputs: Sequence[TensorSpec], count: int, expected: Sample
    ) -> None:
        """Ask for one sample by its place: is it the one that a pass from the beginning gave?"""
        place = expected.index
        for found in self._asked(source, inputs, count, place, place + 1):
            if _bytes(found) != _bytes(expected):
                raise self._wrong_part(count, place, place + 1, "other")

    def _asked(
        self, source: Source, inputs: Sequence[TensorSpec], count: int, start: int, stop: int
    ) -> Iterator[Sample]:
        """Yield a part that the function is asked for."""
        seen = 0
        for sample in self._samples(source, inputs, (start, stop)):
            if seen == stop - start:
                raise self._wrong_part(count, start, stop, "more")
            seen += 1
            yield sample
        if seen < stop - start:
            raise self._wrong_part(count, start, stop, str(seen))

    def _wrong_part(self, count: int, start: int, stop: int, got: str) -> DataError:
        return DataError(
            f"{self.function} yielded {got} samples for start={start}, stop={stop}, after "
            f"{count} from start=0 to the end; it must yield the samples start to stop - 1 "
            f"({stop - start} here) and no others, the same each time, or have no parameters "
            "'start' and 'stop'"
        )

    def _run_through(
        self, source: Source, inputs: Sequence[TensorSpec], count: int, start: int, stop: int
    ) -> Iterator[Sample]:
        """Yield a part of a pass from the beginning; one to the end must give ``count``."""
        seen = 0
        for sample in islice(self._samples(source, inputs, None), stop + (stop == count)):
            seen += 1
            if start < seen <= stop:
                yield sample
        if seen != stop:
            got = "more" if seen > stop else f"{seen}"
            raise DataError(
                f"{self.function} yielded {count} samples at first and {got} in another pass; it "
                "must yield the same each time it is called"
            )

    def _samples(
        self, source: Source, inputs: Sequence[TensorSpec], places: Places | None
    ) -> Iterator[Sample]:
        """Call the function, for ``places`` if it takes them, and yield its samples one by one."""
        call, index, arguments = self.function, 0, self.arguments
        if places is not None:
            index, stop = places
            call += f"(start={index}, stop={stop})"
            arguments = {**arguments, "start": index, "stop": stop}
        yielded = source(**arguments)
        if not isinstance(yielded, Iterable):
            raise DataError(f"{self.function} returned {type(yielded).__name__}, not batches")
        for number, batch in enumerate(yielded):
            origin = f"{call} batch {number}"
            arrays, labels = _arrays(batch, inputs, origin)
            counts = {name: len(array) for name, array in arrays.items()}
            if labels is not None:
                counts["labels"] = len(labels)
            for row in range(same_count(counts, origin)):
                label = None
                if labels is not None:
                    label = as_label(np.asarray(labels[row]), f"{origin}[{row}]")
                yield Sample(
                    index,
                    {spec.name: np.asarray(arrays[spec.name][row]) for spec in inputs},
                    label,
                    f"{self.function}[{index}]",
                )
                index += 1


def _bytes(sample: Sample) -> list[tuple[str, tuple[int, ...], bytes]]:
    arrays = [*sample.arrays.values(), *([] if sample.label is None else [sample.label])]
    return [(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


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
