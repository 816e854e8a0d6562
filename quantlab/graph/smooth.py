"""SmoothQuant: outlying channels of what matrix products read are shared with their weights.

``s_c = m_c^(1 - a) / r_c^a`` scales channel c: r are the ranges of the activation, m the largest
weights that read it, a = 0.5 (Xiao et al., arXiv:2211.10438, equation 4, whose s divides).  Behind
a normalization the factors go into its scale and bias, for all that read it together (query, key
and value).  Behind what takes no factor, GELU, SiLU, an attention, they become a product in front
of the readers.

Other sets that constants write are ``equalize``'s.
Limits: sets that gain little are left alone, as ``rescale`` says.
"""

from collections.abc import Container
from functools import partial

import onnx_ir as ir

from quantlab.graph.channel_noise import Factors, Reading, balanced
from quantlab.graph.channel_sets import ChannelSet, Ranges
from quantlab.graph.rescale import Rescaled, rescale_each

ALPHA = 0.5
"""How much of the inequality the weights take; the paper's for most networks."""


def smooth(
    model: ir.Model,
    amax: Ranges,
    *,
    quantized: Container[str] | None = None,
    alpha: float = ALPHA,
) -> Rescaled:
    """Smooth every set behind a normalization, and every tensor that takes no factor.

    Args:
        model: prepared; stays as it is.
        amax: channel ranges of the tensors that ``channel_sets.axes`` names.
        quantized: names of this model's quantized tensors; None for all.
        alpha: of the formula, 0 to 1.
    """
    return rescale_each(model, amax, "smooth", partial(_factors, alpha), quantized)


def _factors(alpha: float, channel_set: ChannelSet, reading: Reading) -> Factors | None:
    if not channel_set.behind and not channel_set.normalized:
        return None
    return balanced(reading, alpha)
