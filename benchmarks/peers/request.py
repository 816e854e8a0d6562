"""What the process of a cell is told, and the batches that it reads; needs NumPy only."""

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

LOCAL_HEADER = struct.Struct("<26x2H")
"""PKWARE APPNOTE 4.3.7: lengths of the name and the extra field end the 30 fixed bytes."""


@dataclass(frozen=True, slots=True)
class Request:
    """A cell's work.

    Attributes:
        tool: name in TOOLS or SEARCHES.
        model: the prepared model.
        tapped: the same with the tensors that quantlab collects as outputs.
        samples: .npz, not compressed, with one array (images, ...) named as the model's input.
        histograms: .npz of ``searching``.
        images: how many to read.
        batch: how many at once.
        folder: for the tool's files and the answer.
    """

    tool: str
    model: str
    tapped: str
    samples: str
    histograms: str
    images: int
    batch: int
    folder: str

    def write(self) -> Path:
        """Write the request into its folder."""
        path = Path(self.folder) / "request.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @staticmethod
    def read(path: Path) -> "Request":
        """Read what ``write`` wrote."""
        return Request(**json.loads(path.read_text()))

    def batches(self) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield batches, and note in the folder how many images have been asked for."""
        noted = Path(self.folder) / "images_read"
        with zipfile.ZipFile(self.samples) as archive:
            name = archive.namelist()[0]
        images = mapped(Path(self.samples), name)
        for start in range(0, self.images, self.batch):
            stop = min(start + self.batch, self.images)
            noted.write_text(str(stop))
            yield {name.removesuffix(".npy"): np.ascontiguousarray(images[start:stop])}


def mapped(path: Path, member: str) -> NDArray[np.float32]:
    """Map a member of an .npz that is not compressed into memory, read-only."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        offset = archive.getinfo(member).header_offset
        file.seek(offset)
        name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(offset + LOCAL_HEADER.size + name + extra)
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
        return np.memmap(path, dtype, "r", file.tell(), shape)
