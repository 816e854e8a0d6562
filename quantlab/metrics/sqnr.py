"""Signal-to-quantization-noise ratio: ``10 log10(sum fp32**2 / sum (output - fp32)**2)``, in dB.

Both sums run over all elements of all samples.  It is reported within +-150 dB; identical outputs
give 150.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.metrics.arrays import decibels, flat_pair
from quantlab.metrics.base import Array, Reference


@dataclass(frozen=True, slots=True)
class Sqnr:
    """Outputs of any shape against FP32's."""

    name: ClassVar[str] = "sqnr"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[Reference] = "fp32"

    def scores(self, outputs: Array, target: Array) -> NDArray[np.float64]:
        """Return (n, 2): energy of the signal and of the noise."""
        a, b = flat_pair(outputs, target, "FP32's output")
        return np.stack([np.square(b).sum(axis=1), np.square(a - b).sum(axis=1)], axis=1)

    def value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ratio of the summed energies of rows (..., n, 2)."""
        energy = scores.sum(axis=-2)
        return decibels(energy[..., 0], energy[..., 1])
