"""How much noise INT8 adds to what reads a set of channels, as a model to compare factors by.

Channel c has the range r_c (largest magnitude) and is scaled by s_c; output o reads it by weights
w_oc.  One grid serves the tensor, one the weights of each output:

    signal      S_o = sum_c w_oc^2 p_c,  p_c = (SPREAD r_c)^2
    activation  A_o = sum_c (w_oc / s_c)^2 e(s_c^2 p_c, max_c(s_c r_c))
    weights     W_o = sum_c s_c^2 p_c e((w_oc / s_c)^2, max_c |w_oc / s_c|)

with ``e(p, t) = min(p, (t / 127)^2 / 12)``: the variance of uniform rounding on a grid up to t, at
most the power p of what is lost whole.  The noise is the mean of (A_o + W_o) / S_o over the
outputs, so that how these are scaled in turn does not matter.  Factors that make A smaller make W
larger, except in a depthwise convolution, where each output has one channel.

Source: rounding as uniform noise, Nagel et al., arXiv:2106.08295, section 2; the factors, Nagel et
        al., arXiv:1906.04721, and Xiao et al., arXiv:2211.10438.
Limits: it knows neither thresholds below the largest magnitude nor what later layers make of the
        noise, so it compares factors and predicts no accuracy.
"""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.errors import ModelError
from quantlab.graph.channel_roles import End
from quantlab.graph.channel_sets import ChannelSet, Ranges
from quantlab.graph.editor import Editor
from quantlab.graph.view import WEIGHTED
from quantlab.qparams import LEVELS

Factors = NDArray[np.float64]
"""(channels,), positive."""

SPREAD = 1 / 4
"""Root mean square of a channel over its range: a normal distribution that was seen to 4 sigma."""

FLOOR = 2.0**-12
"""Least range of a channel over the tensor's: what is less, or was never seen, counts as this, so
that factors keep biases and what is before a Relu within FP16."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the channels of a set are read.

    Attributes:
        ranges: largest magnitude of each channel, (channels,), floored.
        weights: magnitudes by reader, each (groups, outputs, channels of a group, elements).
    """

    ranges: NDArray[np.float64]
    weights: tuple[NDArray[np.float64], ...]

    def noise(self, factors: Factors) -> float:
        """Return the modelled noise over the signal with these factors, summed over readers."""
        power = (SPREAD * self.ranges * factors) ** 2
        lost = _rounded(power, (self.ranges * factors).max())
        total = 0.0
        for weights in self.weights:
            each = (weights.shape[0], 1, weights.shape[2], 1)
            seen = weights / factors.reshape(each)
            lost_weights = _rounded(seen**2, seen.max(axis=(2, 3), keepdims=True))
            noise = seen**2 * lost.reshape(each) + lost_weights * power.reshape(each)
            signal = (seen**2 * power.reshape(each)).sum(axis=(2, 3))
            noises = noise.sum(axis=(2, 3))[signal > 0]
            total += float((noises / signal[signal > 0]).sum()) / signal.size
        return total

    def gain(self, factors: Factors) -> float:
        """Return the noise without factors over that with them."""
        return self.noise(np.ones_like(factors)) / self.noise(factors)

    @property
    def largest_weights(self) -> NDArray[np.float64]:
        """Largest magnitude of the weights that read each channel, (channels,), floored."""
        each = [weights.max(axis=(1, 3)).reshape(-1) for weights in self.weights]
        found = np.max(each, axis=0)
        return np.asarray(np.maximum(found, found.max() * FLOOR), np.float64)


def balanced(reading: Reading, exponent: float) -> Factors:
    """Return ``m^(1 - a) / r^a`` times what keeps the tensor's range.

    Args:
        reading: r are its ranges, m its largest weights.
        exponent: a; 1 makes all ranges equal, 0.5 shares the inequality with the weights.
    """
    factors = reading.largest_weights ** (1 - exponent) / reading.ranges**exponent
    scale: float = reading.ranges.max() / (reading.ranges * factors).max()
    return np.asarray(factors * scale, np.float64)


def read(
    editor: Editor, channel_set: ChannelSet, amax: Ranges, quantized: Container[str] | None
) -> Reading | None:
    """Return how a set is read; None if no weighted layer does or no quantized tensor is in it.

    Of several tensors the geometric mean of the ranges counts: each has a grid of its own.

    Args:
        editor: of the model.
        channel_set: of this model.
        amax: ranges by tensor; tensors without one, or always zero, are left out.
        quantized: names of tensors; None for all.
    """
    readers = [e for e in channel_set.readers if editor.node(e.node).op_type in WEIGHTED]
    names = [t for t in channel_set.tensors if t in amax and (quantized is None or t in quantized)]
    ranges = [np.maximum(amax[t], amax[t].max() * FLOOR) for t in names if amax[t].max() > 0]
    weights = tuple(_magnitudes(editor, end) for end in readers)
    if not ranges or not any(found.any() for found in weights):
        return None
    return Reading(np.exp(np.mean(np.log(ranges), axis=0)), weights)


def _rounded(power: NDArray[np.float64], largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the noise power that a grid up to ``largest`` adds to elements of this power."""
    return np.minimum(power, (largest / LEVELS) ** 2 / 12)


def constant_of(editor: Editor, end: End) -> tuple[ir.Value, NDArray[np.float32]]:
    """Return the constant of an end and its elements.

    Raises:
        ModelError: it is none; the set is of another model.
    """
    value = editor.node(end.node).inputs[end.slot]
    if value is None or value.const_value is None:
        raise ModelError(
            f"input {end.slot} of node {end.node!r} is no constant; find the sets of this model"
        )
    return value, np.asarray(value.const_value.numpy(), np.float32)


def _magnitudes(editor: Editor, end: End) -> NDArray[np.float64]:
    array = np.abs(constant_of(editor, end)[1].astype(np.float64))
    parts = array.reshape(end.groups, -1, array.shape[1], int(np.prod(array.shape[2:])))
    return parts if end.axis == 1 else parts.swapaxes(1, 2)
