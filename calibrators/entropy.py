r"""The published entropy method of TensorRT's INT8 calibration.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, S7310.  Of the histogram's counts c,
total T, each m from 128 to the number of used bins is a candidate:

- P is ``c[:m]`` with the outliers, ``sum(c[m:])``, added to its last bin;
- Q is ``c[:m]`` without outliers, merged to 128 levels, each level's mass then spread evenly over
  those of its bins that are not empty;
- the cost is the Kullback-Leibler divergence of the normalised P and Q, in nats.

The threshold is the least cost's ``(m + 1/2) * width``: the centre of the first bin left out, as
in the caches that TensorRT writes (a tensor of the range [0, 1] has 2048.5 / 2048 there).  It may
thus exceed the largest magnitude, by 1.5 bins at most.

Where the publication is silent:

- Bin j goes to level ``floor(j * levels / m)``, so level k starts at bin ``ceil(k * m / levels)``.
- A candidate whose last bin is empty while there are outliers has P > 0 where Q = 0: infinite, so
  it is no candidate.
- Of equal costs (``base.TIE``) the largest threshold wins: clipping must gain something.
- The first bin holds every zero.  Behind a ReLU that is half of the tensor, and taking it as a
  bin like others makes a few bins of amax/32 the least cost: on ReLU of normal data the
  signal-to-noise ratio falls from 39 to 19 dB, although zeros are exact on every grid.  By default
  the first bin is therefore given its neighbour's count, the rule of NVIDIA's open calibrators
  (pytorch-quantization, Model-Optimizer); ``zero_bin="count"`` takes the publication literally.

All candidates from cumulative sums.  With ``p = c / T``, kept mass ``N = sum(p[:m])``, outliers
``o = 1 - N``, and level k holding mass s_k on n_k bins that are not empty,

    KL = sum_{j<m-1} p_j log p_j + (p_{m-1} + o) log(p_{m-1} + o)
         - sum_k s_k log(s_k / n_k) - o log(s_last / n_last) + log N.

The first sum, N, s_k and n_k are differences of cumulative sums at the levels' borders.  A level
of given start and length occurs in many candidates; its term is computed once.
Edges: a constant tensor, and one whose elements share a bin, keep their range; so does one of
fewer bins than levels (magnitudes below 2**-988).
"""

import math
from dataclasses import dataclass
from typing import Literal

from quantlab.calibrators.base import check, last_least
from quantlab.errors import ConfigError
from quantlab.histogram import BINS, Histogram


@dataclass(frozen=True, slots=True)
class Entropy:
    """Keep the distribution's shape: least divergence between tensor and quantized tensor.

    Attributes:
        levels: positive steps of the grid that Q is merged to, 16 to 2048; 128 as published.
        zero_bin: "neighbour" gives the first bin the second's count, "count" leaves it as it is.
    """

    levels: int = 128
    zero_bin: Literal["neighbour", "count"] = "neighbour"

    def __post_init__(self) -> None:
        """Raise ConfigError for levels out of range."""
        if not 16 <= self.levels <= BINS // 2:
            raise ConfigError(
                f"levels: expected 16 to {BINS // 2}, got {self.levels}; 128 is the published INT8"
            )

    def threshold(self, histogram: Histogram) -> float:
        """Return the threshold in the tensor's units, at most ``(used + 1/2) * width``.

        Raises:
            CalibrationError: as ``base.check``.
        """
        check(histogram)
        if histogram.amax == 0:
            return 0.0
        best = histogram.used
        if best > self.levels:
            from quantlab.calibrators.kernels import divergences  # loads Numba

            counts = histogram.counts[:best].copy()
            if self.zero_bin == "neighbour":
                counts[0] = counts[1]
            best = self.levels + last_least(divergences(counts, self.levels))
        return math.ldexp(best + 0.5, histogram.exponent)
