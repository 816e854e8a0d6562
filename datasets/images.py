"""Image files to pixels: decoding, turning upright, resizing, centre crop.

The arithmetic of sizes is that of the usual ImageNet pipelines: resizing the shorter side to s
makes the longer one floor(s * longer / shorter), and a crop starts at round((side - crop) / 2),
half to even.  Interpolation is Pillow's, which averages over the pixels that it shrinks.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from quantlab.errors import DataError

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of pixels alone; others that Pillow opens run interpreters or other programs."""

LARGEST_IMAGE = 1 << 26
"""Pixels of an image before or after resizing; below the size that Pillow warns of."""

MALFORMED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # an exception where warnings are errors
)
"""What Pillow's decoders raise on malformed files."""

MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}

Colour = Literal["rgb", "bgr", "gray"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Size = int | tuple[int, int] | None


class Unreadable(DataError):
    """A file that is no image that can be decoded."""


@dataclass(frozen=True, slots=True)
class Transform:
    """How an image becomes pixels; attributes as in ImageFolder."""

    resize: Size
    crop: Size
    colour: Colour
    interpolation: Interpolation

    def pixels(self, path: Path, name: str) -> NDArray[np.uint8]:
        """Return a file's pixels (height, width, channels).

        Args:
            path: the file.
            name: what messages call it.

        Raises:
            Unreadable: not an image, damaged, too large, or deeper than 8 bits.
            DataError: smaller than the crop, or too large once resized.
        """
        image = self._resized(decode(path, name, MODES[self.colour]), name)
        if self.crop is not None:
            image = _cropped(image, self.crop, name)
        pixels = np.asarray(image, np.uint8)
        if self.colour == "gray":
            return pixels[:, :, np.newaxis]
        return pixels[:, :, ::-1] if self.colour == "bgr" else pixels

    def _resized(self, image: Image.Image, name: str) -> Image.Image:
        if self.resize is None:
            return image
        if isinstance(self.resize, int):
            short = min(image.size)
            width, height = (self.resize * side // short for side in image.size)
        else:
            height, width = self.resize
        if width * height > LARGEST_IMAGE:
            raise DataError(f"{name}: {width} x {height} pixels once resized; too large")
        resampling = Image.Resampling[self.interpolation.upper()]
        return image.resize((width, height), resampling)


def decode(path: Path, name: str, mode: str) -> Image.Image:
    """Return an image in Pillow's ``mode`` "RGB" or "L", upright by its EXIF orientation.

    Transparency is dropped; of an animation the first frame is taken.

    Raises:
        Unreadable: not an image, damaged, too large, or deeper than 8 bits.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise Unreadable(f"{name}: {image.width} x {image.height} pixels; too large")
            if image.mode[0] in "IF":
                raise Unreadable(f"{name}: deeper than 8 bits; feed it with 'npz' or 'python'")
            upright = ImageOps.exif_transpose(image)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            return upright.convert(mode)
    except UnidentifiedImageError as error:
        raise Unreadable(f"{name}: not a {', '.join(FORMATS)} image") from error
    except MALFORMED as error:
        raise Unreadable(f"{name}: cannot be decoded; {error}") from error


def _cropped(image: Image.Image, crop: int | tuple[int, int], name: str) -> Image.Image:
    height, width = (crop, crop) if isinstance(crop, int) else crop
    if height > image.height or width > image.width:
        raise DataError(
            f"{name}: a crop of {height} x {width} does not fit into {image.height} x "
            f"{image.width} (height x width); set 'resize', or a smaller 'crop'"
        )
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
