"""Outlying channels of tensors that take no factors: a product by powers of two for these alone.

A channel is outlying where its range is more than OUTLYING times the median of the tensor's.  Such
channels, behind a SiLU or a gate for example, are multiplied by ``2^-k`` in front of the layers
that read the tensor, and the weights by ``2^k``, which is exact.  k brings a channel below a limit,
and the limit is the one of least modelled noise (``channel_noise``) of the tensor's range over 2,
4, 8 ... down to where channels are no longer outlying.

Source: scaling single channels by powers of two, as Outlier Suppression+ scales them by real
        numbers (Wei et al., arXiv:2304.09145); powers of two leave the FP32 function bit for bit.
Limits: tensors that gain little are left alone, as ``rescale`` says.
"""

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from quantlab.graph.channel_noise import Factors, Reading
from quantlab.graph.channel_sets import ChannelSet, Ranges
from quantlab.graph.rescale import Rescaled, rescale_each

OUTLYING = 8.0
"""Range of an outlying channel over the median's: three of seven bits of magnitude lost to it."""


def outliers(model: ir.Model, amax: Ranges, *, quantized: Container[str] | None = None) -> Rescaled:
    """Scale down the outlying channels of every tensor that gains by it.

    Args:
        model: prepared; stays as it is.
        amax: channel ranges of the tensors that ``channel_sets.axes`` names.
        quantized: names of this model's quantized tensors; None for all.
    """
    return rescale_each(model, amax, "outliers", _factors, quantized)


def _factors(channel_set: ChannelSet, reading: Reading) -> Factors | None:
    if not channel_set.behind:
        return None
    least = OUTLYING * float(np.median(reading.ranges))
    steps = int(np.ceil(np.log2(reading.ranges.max() / least)))
    limits = [reading.ranges.max() * 2.0**-step for step in range(1, steps + 1)]
    tried = [_below(reading, max(limit, least)) for limit in limits]
    return min(tried, key=reading.noise, default=None)


def _below(reading: Reading, limit: float) -> Factors:
    """Return the largest powers of two, at most 1, that bring every range to the limit or below."""
    return np.minimum(1.0, np.exp2(-np.ceil(np.log2(reading.ranges / limit))))
