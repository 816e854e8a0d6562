"""How INT8 alone differs from the float model: weights on other grid points, and other biases.

Repairs that keep what the float model computes change that model.  Those that make up for rounding
(a tighter weight threshold, weights rounded otherwise, a bias that takes away a mean error) would
change it, so they are kept apart and enter where Q/DQ is inserted.

Units: biases in the units of the layer's output.
Format: corrections.npz: ``weights`` and ``biases`` hold names; ``integers_I``, ``scale_I`` and
        ``axis_I`` are of the I-th weight, ``axis_I`` -1 for one scale; ``bias_I`` is of the I-th
        node.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.errors import CalibrationError
from quantlab.files import staged
from quantlab.npz import DAMAGED, arrays
from quantlab.qparams import QParams

NO_AXIS = -1


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """Weights as INT8 holds them.

    Attributes:
        integers: int8, in the shape of the float weights.
        params: their scales, for the axis that the placement names.
    """

    integers: NDArray[np.int8]
    params: QParams


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """What INT8 stores otherwise than by rounding the float model.

    Attributes:
        weights: by name of the initializer; others are rounded to nearest within their range.
        biases: by name of a Conv, ConvTranspose, Gemm or MatMul: (channels,) float32 that is added
            to each output channel: along the last axis of a product, axis 1 of a convolution.
    """

    weights: Mapping[str, StoredWeight] = field(default_factory=dict)
    biases: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.weights or self.biases)


NONE = Corrections()


def save(path: Path, corrections: Corrections) -> None:
    """Write corrections, whole or not at all; equal ones give equal bytes.

    Raises:
        OutputError: the folder is not writable or the disk is full.
    """
    columns: dict[str, NDArray[Any]] = {
        "weights": np.array(list(corrections.weights), np.str_),
        "biases": np.array(list(corrections.biases), np.str_),
    }
    for i, stored in enumerate(corrections.weights.values()):
        axis = stored.params.axis
        columns[f"integers_{i}"] = stored.integers
        columns[f"scale_{i}"] = stored.params.scale
        columns[f"axis_{i}"] = np.array(NO_AXIS if axis is None else axis, np.int64)
    for i, bias in enumerate(corrections.biases.values()):
        columns[f"bias_{i}"] = bias
    with staged(path) as temporary:
        np.savez_compressed(temporary, **columns)  # type: ignore[arg-type]  # NumPy's stub lets ** hold its own parameters too


def load(path: Path) -> Corrections:
    """Read what ``save`` wrote.

    Raises:
        CalibrationError: the file is missing, truncated, or of another kind.
    """
    try:
        file = arrays(path)
        weights = {str(n): _weight(file, i) for i, n in enumerate(file["weights"])}
        biases = {str(n): _bias(file, i) for i, n in enumerate(file["biases"])}
    except DAMAGED as error:
        raise CalibrationError(
            f"cannot read the corrections in {path}: {error}; run 'quantlab calibrate' again"
        ) from error
    return Corrections(weights, biases)


def _weight(file: Mapping[str, NDArray[Any]], index: int) -> StoredWeight:
    integers, scale = file[f"integers_{index}"], file[f"scale_{index}"]
    number = int(file[f"axis_{index}"])
    axis = None if number == NO_AXIS else number
    wanted = () if axis is None else integers.shape[axis : axis + 1]
    if integers.dtype != np.int8 or scale.dtype != np.float32 or scale.shape != wanted:
        raise ValueError(
            f"weight {index}: expected int8 and float32 scales of shape {wanted}, got "
            f"{integers.dtype} and {scale.dtype} {scale.shape}"
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"weight {index}: expected finite scales above 0")
    return StoredWeight(integers, QParams(scale, np.zeros(scale.shape, np.int8), axis))


def _bias(file: Mapping[str, NDArray[Any]], index: int) -> NDArray[np.float32]:
    bias = file[f"bias_{index}"]
    if bias.dtype != np.float32 or bias.ndim != 1 or not np.isfinite(bias).all():
        raise ValueError(f"bias {index}: expected finite float32 of one axis, got {bias.dtype}")
    return bias
