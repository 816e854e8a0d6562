"""Cross-layer equalization: the channels of a tensor get equal ranges.

A channel set (``channel_sets``) written by constants and read by constants is scaled by
``s_c = m_c^(1 - a) / r_c^a``: r are the ranges of the activation's channels, m the largest weights
that read them, a is EXPONENT.  With a = 1/2 and r the ranges of the weights that write the channels
it is ``sqrt(r1 r2) / r2`` of Nagel et al., arXiv:1906.04721, which evens out weights that have one
scale a tensor.  Here weights have a scale for each output channel, and what has only one is the
activation: so its seen ranges count.

Sets that a normalization writes are SmoothQuant's (``smooth``).
Limits: ReLU6 as ``channel_sets`` says; sets that gain little are left alone, as ``rescale`` says.
"""

from collections.abc import Container

import onnx_ir as ir

from quantlab.graph.channel_noise import Factors, Reading, balanced
from quantlab.graph.channel_sets import ChannelSet, Ranges
from quantlab.graph.rescale import WORTHWHILE, Rescaled, rescale_each

EXPONENT = 0.75
"""Most of the inequality goes into the weights, whose outputs have scales of their own.  Six
networks with channels planted unequal by 8 bits then lacked 0.3 dB of the SQNR that INT8 has else
in the mean; 0.8 dB with exponent 0.5, 0.5 dB with 1 (docs/decisions/0011)."""


def equalize(
    model: ir.Model,
    amax: Ranges,
    *,
    quantized: Container[str] | None = None,
    worthwhile: float = WORTHWHILE,
) -> Rescaled:
    """Equalize the channels of every set that gains by it.

    Args:
        model: prepared; stays as it is.
        amax: channel ranges of the tensors that ``channel_sets.axes`` names.
        quantized: names of this model's quantized tensors; None for all.
        worthwhile: least ratio of modelled noise before and after.
    """
    return rescale_each(model, amax, "equalize", _factors, quantized, worthwhile)


def _factors(channel_set: ChannelSet, reading: Reading) -> Factors | None:
    if channel_set.behind or channel_set.normalized:
        return None
    return balanced(reading, EXPONENT)
