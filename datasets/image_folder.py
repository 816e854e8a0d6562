"""Images in class folders, in one flat folder, or listed in a CSV of path and label.

Two usual pipelines: ``resize: 256, crop: 224`` makes the shorter side 256 and cuts the centre;
``resize: [224, 224]`` stretches.  Files are taken in the order of their names (a CSV's in its own
order) and decoded ahead by worker threads, at most ``LOOK_AHEAD`` images a worker.  A file's place
in that order is its sample's, whether it can be decoded or not.
"""

import csv
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from quantlab.datasets.base import Array, Sample, Samples
from quantlab.datasets.checks import as_label, check_fit, class_names, only_input, read_text
from quantlab.datasets.images import Colour, Interpolation, Size, Transform, Unreadable
from quantlab.datasets.pixels import Normalization
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec

LOOK_AHEAD = 2

SUFFIXES = {".bmp", ".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to read: its file, what messages call it, its class index."""

    path: Path
    name: str
    label: int | None


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Images for a model with one input.

    Attributes:
        path: folder.  Its subfolders are classes, with images at any depth; without subfolders
            its images are unlabelled.  Links are followed to files.
        csv: file of lines "path,label" or "path" instead; paths are relative to ``path`` and stay
            inside it, links resolved.  Labels are class indices or class names.
        resize: an int makes the shorter side that long and keeps the aspect; [height, width]
            stretches to it.
        crop: centre crop after resizing: [height, width], or an int for a square.
        mean: a pixel of 0 to 255 becomes (pixel * scale - mean) / std; a value for each channel,
            in the order of ``colour``, or one for all.
        std: see ``mean``.
        scale: see ``mean``; None is 1/255 for a floating-point input and 1 for a uint8 one.
        layout: order of the model's axes after the batch axis.
        colour: order of channels, or one grey channel.
        interpolation: of resizing.
        on_error: "skip" leaves images out that cannot be decoded, and lists them.
        class_names: file of class names, one a line, in the order of indices; without it the
            sorted names of folders, or of a CSV's labels, are the classes.
        workers: threads that decode.
    """

    path: Path
    csv: Path | None = None
    resize: Size = None
    crop: Size = None
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    scale: float | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    colour: Colour = "rgb"
    interpolation: Interpolation = "bilinear"
    on_error: Literal["fail", "skip"] = "fail"
    class_names: Path | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        for key, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and np.min(size) < 1:
                raise ConfigError(f"image_folder: {key!r} is {size}; sizes are at least 1")
        if self.workers < 1:
            raise ConfigError(f"image_folder: 'workers' is {self.workers}; at least 1 is needed")
        self._normalization().check(channels=1 if self.colour == "gray" else 3)

    @contextmanager
    def open(self, inputs: Sequence[TensorSpec]) -> Iterator[Samples]:
        """Open for a model with one input; files are listed, not read.

        Raises:
            DataError: no images, a bad CSV, or an input that takes no pixels.
        """
        spec = only_input(inputs, "image_folder")
        self._normalization().check_input(spec)
        names = class_names(self.class_names)
        ignored: tuple[str, ...] = ()
        if self.csv is None:
            entries, names, ignored = list_folder(self.path, names)
        else:
            entries, names = list_csv(self.csv, self.path, names)
        if not entries:
            raise DataError(f"{self.csv or self.path}: no images")
        yield _Images(self, spec, entries, names, ignored)

    def read(self, entry: Entry, spec: TensorSpec) -> Array:
        """Return one image as the input takes it.

        Raises:
            Unreadable: the file cannot be decoded.
            DataError: its shape does not fit.
        """
        transform = Transform(self.resize, self.crop, self.colour, self.interpolation)
        pixels = transform.pixels(entry.path, entry.name)
        array = self._normalization().apply(pixels, spec.dtype)
        if self.layout == "nchw":
            array = array.transpose(2, 0, 1)
        hint = "set 'resize' or 'crop', 'colour' and 'layout' to what the model takes"
        check_fit(spec, array.dtype, array.shape, entry.name, hint=hint)
        return np.ascontiguousarray(array)

    def image(self, path: Path, spec: TensorSpec) -> Array:
        """Return any image as the input takes it; see ``Pictures.image``."""
        self._normalization().check_input(spec)
        return self.read(Entry(path, str(path), None), spec)

    def _normalization(self) -> Normalization:
        return Normalization(self.scale, _each(self.mean), _each(self.std))


def _each(values: float | tuple[float, ...]) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,)


class _Images:
    """The images of an opened folder; remembers those that could not be decoded."""

    shardable = True

    def __init__(
        self,
        dataset: ImageFolder,
        spec: TensorSpec,
        entries: list[Entry],
        names: tuple[str, ...] | None,
        ignored: tuple[str, ...],
    ) -> None:
        self.class_names = names
        self._dataset = dataset
        self._spec = spec
        self._entries = entries
        self._ignored = ignored
        self._unreadable: dict[int, str] = {}  # by place

    @property
    def skipped(self) -> tuple[str, ...]:
        """Files that are not named like images, and those that could not be decoded so far."""
        return (*self._ignored, *(reason for _, reason in sorted(self._unreadable.items())))

    def __len__(self) -> int:
        """Return the number of images, those that cannot be decoded included."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Sample]:
        return self.part(0, len(self))

    def part(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the images at places ``start <= index < stop`` that can be decoded.

        Raises:
            DataError: one cannot, and ``on_error`` is "fail"; or it does not fit.
        """
        start = max(start, 0)
        entries = self._entries[start : max(stop, 0)]
        decode = partial(self._dataset.read, spec=self._spec)
        # Bound to no name: a traceback would keep it, and its threads, alive.
        for index, (entry, image) in enumerate(
            ahead(decode, entries, self._dataset.workers), start
        ):
            try:
                array = image.result()
            except Unreadable as error:
                if self._dataset.on_error == "fail":
                    raise DataError(f"{error}; repair it, or set 'on_error: skip'") from error
                self._unreadable[index] = str(error)
                continue
            label = None if entry.label is None else as_label(np.array(entry.label), entry.name)
            yield Sample(index, {self._spec.name: array}, label, entry.name)


def ahead(
    function: Callable[[Entry], Array], entries: Sequence[Entry], workers: int
) -> Iterator[tuple[Entry, Future[Array]]]:
    """Yield entries in order with their results, computed at most LOOK_AHEAD a worker ahead."""
    waiting: deque[tuple[Entry, Future[Array]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for entry in entries:
                waiting.append((entry, pool.submit(function, entry)))
                if len(waiting) > LOOK_AHEAD * workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()


def list_folder(
    folder: Path, names: tuple[str, ...] | None
) -> tuple[list[Entry], tuple[str, ...] | None, tuple[str, ...]]:
    """Return the images of a folder, the class names, and what was passed over with the reason.

    Hidden files and folders are not looked at.

    Raises:
        DataError: unreadable, images beside class folders, or a folder that is no class.
    """
    files = sorted(_walk(folder))
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    ignored = tuple(f"{file}: not named like an image" for file in files if file not in set(images))
    flat = [file for file in images if len(file.parts) == 1]
    if len(flat) == len(images):
        return [Entry(folder / file, str(file), None) for file in flat], names, ignored
    if flat:
        raise DataError(
            f"{folder}: {flat[0]} lies beside class folders, so its class is unknown; move it, or "
            "list path and label in a CSV"
        )
    classes = names or tuple(sorted({file.parts[0] for file in images}))
    index = _index(classes)
    unknown = sorted({file.parts[0] for file in images} - index.keys())
    if unknown:
        raise DataError(f"{folder}: folder {unknown[0]!r} is not in the class names")
    entries = [Entry(folder / file, str(file), index[file.parts[0]]) for file in images]
    return entries, classes, ignored


def list_csv(
    path: Path, folder: Path, names: tuple[str, ...] | None
) -> tuple[list[Entry], tuple[str, ...] | None]:
    """Return the images of a CSV and the class names.

    Raises:
        DataError: unreadable, a line that is not a path and a label, or a path out of the folder.
    """
    try:
        rows = [(at, row) for at, row in enumerate(csv.reader(_lines(path), strict=True), 1) if row]
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file; {error}") from error
    if rows and rows[0][1][0].strip().lower() == "path":
        rows = rows[1:]
    columns = len(rows[0][1]) if rows else 1
    for at, row in rows:
        if len(row) != columns or columns > 2:
            raise DataError(
                f"{path}: row {at} has {len(row)} columns; expected path and label, or paths alone"
            )
    labels: list[int] | list[None] = [None] * len(rows)
    if columns == 2:
        labels, names = _labels(path, [row[1].strip() for _, row in rows], names)
    root = folder.resolve()
    entries = [
        Entry(_inside(root, row[0].strip(), f"{path}: row {at}"), row[0].strip(), label)
        for (at, row), label in zip(rows, labels, strict=True)
    ]
    return entries, names


def _lines(path: Path) -> list[str]:
    return read_text(path).splitlines(keepends=True)


def _labels(
    path: Path, labels: list[str], names: tuple[str, ...] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    """Return class indices of labels that are all integers or all names."""
    try:
        return [int(label) for label in labels], names
    except ValueError:
        classes = names or tuple(sorted(set(labels)))
    index = _index(classes)
    for label in labels:
        if label not in index or _number(label):
            raise DataError(
                f"{path}: label {label!r} is neither a class index on every row nor a class name"
            )
    return [index[label] for label in labels], classes


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _index(classes: tuple[str, ...]) -> dict[str, int]:
    index = {name: at for at, name in enumerate(classes)}
    if len(index) < len(classes):
        raise DataError("two classes have the same name, so images cannot be told apart by it")
    return index


def _inside(root: Path, name: str, where: str) -> Path:
    """Return the file ``name`` in ``root``.

    Raises:
        DataError: it is not inside.
    """
    if not name or "\0" in name:
        raise DataError(f"{where}: no path")
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise DataError(f"{where}: {name!r} is outside the folder {root}")
    return path


def _walk(folder: Path) -> Iterator[PurePath]:
    """Yield the files below a folder, relative to it, without hidden ones."""

    def fail(error: OSError) -> None:
        raise DataError(f"cannot read folder {error.filename}: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield PurePath(place, name).relative_to(folder)
