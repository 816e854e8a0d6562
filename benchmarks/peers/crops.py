"""Crops of photographs as a network's input."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEED = 0

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet, by colour, for pixels from 0 to 1: as the network was trained."""

SMALLEST = 0.4
"""Of a photograph's shorter side; crops are squares from there to all of it."""


def crops(files: Sequence[Path], count: int, size: int) -> NDArray[np.float32]:
    """Return (count, 3, size, size): photographs in turn, each time another square and mirroring.

    The same for the same files: the seed is fixed.
    """
    photographs = [Image.open(file).convert("RGB") for file in files]
    random = np.random.default_rng(SEED)
    images = np.empty((count, 3, size, size), np.float32)
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        side = int(min(photograph.size) * random.uniform(SMALLEST, 1.0))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in photograph.size)
        square = photograph.resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
        )
        pixels = np.asarray(square, np.float32)[:, :: random.choice((-1, 1))] / 255
        images[index] = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    return images
