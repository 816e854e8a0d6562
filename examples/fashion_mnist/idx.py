"""Read, write and normalise Fashion-MNIST, and choose the shipped calibration images.

What:   gzip'ed IDX files of unsigned bytes, and the network input made of them.
Units:  pixels are 0..255, 0 is the black background; input is (pixel / 255 - MEAN) / STD, with
        mean and standard deviation of all training pixels.
Source: Fashion-MNIST, Zalando Research, MIT licence, which uses the IDX format of MNIST.
Limits: the calibration images are also training images; none of them is a test image.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

MEAN = 0.2860
STD = 0.3530
SIZE = 28
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CALIBRATION_PER_CLASS = 100

UInt8 = npt.NDArray[np.uint8]


def read_idx(path: Path) -> UInt8:
    """Read one gzip'ed IDX file of unsigned bytes into an array of its stored shape."""
    raw = gzip.decompress(path.read_bytes())
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(f"{path}: header says {shape}, file holds {values.size} values")
    return values.reshape(shape)


def write_idx(path: Path, values: UInt8) -> None:
    """Write an array of unsigned bytes as gzip'ed IDX without name or time in the header."""
    header = b"\x00\x00\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=9, mtime=0))


def read_split(folder: Path, prefix: str) -> tuple[UInt8, UInt8]:
    """Read the images [N, 28, 28] and labels [N] of ``train``, ``t10k`` or ``calib``."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    if images.shape != (len(labels), SIZE, SIZE):
        raise ValueError(f"{folder}: {prefix} images {images.shape}, {len(labels)} labels")
    return images, labels


def choose_calibration(labels: UInt8, per_class: int, seed: int) -> list[int]:
    """Choose ``per_class`` indices of each class, classes taking turns.

    Indices are ranked by a hash of seed and index, which no library version can change; taking
    turns keeps every prefix of the set balanced, so a smaller calibration run stays fair.
    """
    ranked = sorted(
        range(len(labels)),
        key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest(),
    )
    columns = [
        [index for index in ranked if labels[index] == label][:per_class]
        for label in range(len(LABELS))
    ]
    if any(len(column) < per_class for column in columns):
        raise ValueError(f"a class has fewer than {per_class} images")
    return [column[row] for row in range(per_class) for column in columns]


def write_data(source: Path, target: Path, seed: int) -> int:
    """Write the test files, the calibration set and ``labels.txt``; return the set's size."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        shutil.copyfile(source / name, target / name)
    images, labels = read_split(source, "train")
    chosen = choose_calibration(labels, CALIBRATION_PER_CLASS, seed)
    write_idx(target / "calib-images-idx3-ubyte.gz", images[chosen])
    write_idx(target / "calib-labels-idx1-ubyte.gz", labels[chosen])
    (target / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    return len(chosen)


def normalise(images: UInt8) -> npt.NDArray[np.float32]:
    """Turn bytes [N, 28, 28] into the network's input, float32 [N, 1, 28, 28]."""
    scaled = (images.astype(np.float32) / 255.0 - MEAN) / STD
    return scaled[:, np.newaxis].astype(np.float32)
