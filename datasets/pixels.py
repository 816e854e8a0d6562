"""From 8-bit pixels to what a model takes: (pixel * scale - mean) / std, a channel at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantlab.datasets.base import Array
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec

FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Normalization:
    """Scaling of pixels.

    Attributes:
        scale: factor; None is 1/255 for a floating-point input and 1 for a uint8 one.
        mean: subtracted after scaling, one for all channels or one each.
        std: divided by, likewise; not 0.
    """

    scale: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def check(self, channels: int) -> None:
        """Raise ConfigError if a value cannot be used with ``channels`` channels."""
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ConfigError(
                    f"{key!r} has {len(values)} values; give one, or one for each of the "
                    f"{channels} channels"
                )
        scale = 1 if self.scale is None else self.scale
        if not np.isfinite([scale, *self.mean, *self.std]).all() or 0 in self.std:
            raise ConfigError("'scale', 'mean' and 'std' must be finite, and 'std' not 0")

    def check_input(self, spec: TensorSpec) -> None:
        """Raise DataError if the input is not floating point, nor uint8 and fed as it is."""
        if spec.dtype not in (*FLOATS, "uint8"):
            raise DataError(f"input {spec}: expected float32 or uint8 to feed pixels to")
        as_it_is = self.scale in (None, 1) and not any(self.mean) and set(self.std) == {1}
        if spec.dtype == "uint8" and not as_it_is:
            raise DataError(
                f"input {spec} takes 8-bit pixels as they are; leave out 'scale', 'mean' and 'std'"
            )

    def apply(self, pixels: NDArray[np.uint8], dtype: str) -> Array:
        """Return pixels (..., channels) in the input's dtype; computed in float32."""
        if dtype not in FLOATS:
            return pixels
        scale = np.float32(1 / 255 if self.scale is None else self.scale)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return np.asarray((pixels.astype(np.float32) * scale - mean) / std).astype(dtype)
