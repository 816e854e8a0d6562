"""Scaling the channels of sets: writers times s, readers over s; the function stays the same.

A set with a head gets a product by s behind it; engines fuse it with the element-wise work before.

Arithmetic: factors and products in float64, weights stored in float32, so a weight is rounded once
for each set that scales it; powers of two round nothing.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.graph.channel_noise import Factors, Reading, constant_of, read
from quantlab.graph.channel_roles import End
from quantlab.graph.channel_sets import ChannelSet, Ranges, channel_sets
from quantlab.graph.editor import Editor
from quantlab.graph.passes import copy

Choose = Callable[[ChannelSet, Reading], Factors | None]
"""What a repair proposes for a set: its factors, None to leave it as it is."""

WORTHWHILE = 4.0
"""Least ratio of modelled noise before and after: one bit of the grid.  Channels of ordinary
networks are unequal by ratios up to 3.5, and evening them out changed the noise at their outputs
by +0.9 to -0.2 dB; channels that break a network give ratios of 100 and more."""

WORTH_A_PRODUCT = 16.0
"""The same where a product has to be put in, which may cost a pass over the elements: two bits."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to the channels of one set.

    Attributes:
        kind: the repair's name.
        tensors: those that the factors scale, or that a product in front of readers now reads.
        nodes: whose constants changed, products that were put in, clips that became Relu.
        factors_low, factors_high: smallest and largest factor.
        note: what it is to bring.
        clips: nodes that became Relu, since no sample reached their upper bound.
    """

    kind: str
    tensors: tuple[str, ...]
    nodes: tuple[str, ...]
    factors_low: float
    factors_high: float
    note: str
    clips: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rescaled:
    """What a repair made.

    Attributes:
        model: a new model, or the very argument if nothing was changed.
        changes: in graph order.
        amax: ranges of the new model's channels, from those of the argument: a next repair of the
            same samples needs no inference.
    """

    model: ir.Model
    changes: tuple[Change, ...]
    amax: Mapping[str, NDArray[np.float64]]


def rescale_each(
    model: ir.Model,
    amax: Ranges,
    kind: str,
    choose: Choose,
    quantized: Container[str] | None,
    worthwhile: float = WORTHWHILE,
) -> Rescaled:
    """Scale every set of a prepared model for which there are factors that are worth it.

    Args:
        model: stays as it is.
        amax: ranges of the tensors that ``channel_sets.axes`` names; sets without are left alone.
        kind: for the changes.
        choose: proposes factors.
        quantized: names of this model's quantized tensors; a set without any is left alone.  None
            takes all tensors for quantized.
        worthwhile: least ratio of modelled noise, where no product has to be put in.
    """
    editor, ranges = Editor(copy(model)), dict(amax)
    changes = []
    for channel_set in channel_sets(model, amax):
        reading = read(editor, channel_set, amax, quantized)
        factors = None if reading is None else choose(channel_set, reading)
        if reading is None or factors is None:
            continue
        gain = reading.gain(factors)
        if not gain >= (WORTH_A_PRODUCT if channel_set.behind else worthwhile):  # nor NaN
            continue
        note = f"{10 * np.log10(gain):.0f} dB less noise by the model"
        nodes = rescale(editor, channel_set, factors)
        for place, name in enumerate(channel_set.tensors):
            if name in amax:
                product = channel_set.behind and place == 0
                ranges[nodes[0] if product else name] = amax[name] * factors
        low, high = float(factors.min()), float(factors.max())
        tensors, clips = tuple(channel_set.tensors), tuple(channel_set.clips)
        changes.append(Change(kind, tensors, nodes, low, high, note, clips))
    return Rescaled(editor.model if changes else model, tuple(changes), ranges)


def rescale(editor: Editor, channel_set: ChannelSet, factors: Factors) -> tuple[str, ...]:
    """Scale the channels of one set; return the nodes that changed, a product put in first.

    Args:
        editor: its model is changed.
        channel_set: of this model.
        factors: one for each channel.
    """
    ends = (*channel_set.writers, *channel_set.readers)
    changed = [*(end.node for end in ends), *channel_set.clips]
    if channel_set.behind:
        changed.insert(0, _multiply(editor, channel_set, factors))
    for end in channel_set.writers:
        _scale(editor, end, factors)
    for end in channel_set.readers:
        _scale(editor, end, 1.0 / factors)
    for name in channel_set.clips:
        clip = editor.node(name)
        clip.op_type = "Relu"
        clip.resize_inputs(1)
        clip.attributes.clear()
    return tuple(dict.fromkeys(changed))


def along(end: End, shape: tuple[int, ...], factors: Factors) -> Factors:
    """Return ``factors`` shaped to broadcast along the channels of a constant of this shape."""
    if end.axis == 1 and end.groups > 1:
        rows = np.repeat(factors.reshape(end.groups, -1), shape[0] // end.groups, axis=0)
        return rows.reshape(rows.shape + (1,) * (len(shape) - 2))
    return factors.reshape([-1 if axis == end.axis else 1 for axis in range(len(shape))])


def _scale(editor: Editor, end: End, factors: Factors) -> None:
    """Give a node's constant times ``factors`` to this node alone."""
    value, old = constant_of(editor, end)
    array = (old * along(end, old.shape, factors)).astype(np.float32)
    if len(value.uses()) == 1:
        value.const_value = ir.tensor(array, name=value.name)
    else:
        own = editor.constant(f"{value.name}_scaled", array)
        editor.node(end.node).replace_input_with(end.slot, own)


def _multiply(editor: Editor, channel_set: ChannelSet, factors: Factors) -> str:
    """Put a product behind the head of a set; return its name, which is also its output's."""
    name, axis = next(iter(channel_set.tensors.items()))
    source = editor.tensor(name)
    shaped = factors.reshape([-1 if i == axis else 1 for i in range(len(source.shape or ()))])
    constant = editor.constant(f"{name}_factors", shaped.astype(np.float32))
    readers = [node for node in editor.model.graph if node.name in channel_set.behind]
    made = editor.insert("Mul", (source, constant), f"{name}_scaled", before=readers[0])
    made.type, made.shape = source.type, source.shape
    for node in readers:
        for slot, value in enumerate(node.inputs):
            if value is source:
                node.replace_input_with(slot, made)
    return str(made.name)
