"""The quantized layers that corrections are made for, and what they read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from quantlab.graph.corrections import Corrections
from quantlab.graph.fold_dequantize import fold_dequantize
from quantlab.graph.sites import Weight
from quantlab.graph.view import WEIGHTED, constant, rank
from quantlab.simulate import Arrays, Batches, Draft

WEIGHTS, BIAS = 1, 2
"""Inputs of a layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution or product with constant weights that are quantized.

    Attributes:
        node: of the float model.
        weight: as placed.
    """

    node: ir.Node
    weight: Weight

    @property
    def name(self) -> str:
        """Return the node's name."""
        return str(self.node.name)


def layers(draft: Draft) -> list[Layer]:
    """Return the layers whose weights are input 1 and whose bias, if any, is constant."""
    nodes = {str(node.name): node for node in draft.model.graph}
    found = [Layer(nodes[weight.edge.node], weight) for weight in draft.placement.weights]
    return [layer for layer in found if layer.weight.edge.index == WEIGHTS and _plain(layer.node)]


def folded(draft: Draft, corrections: Corrections) -> ir.Model:
    """Return the INT8 model with these corrections, its weights as constants in FP32."""
    return fold_dequantize(replace(draft, corrections=corrections).int8()).model


def first(batches: Batches, samples: int) -> Iterator[Arrays]:
    """Yield batches until they hold at least this many samples."""
    seen = 0
    for inputs in batches():
        yield inputs
        seen += batch_size(inputs)
        if seen >= samples:
            return


def batch_size(inputs: Arrays) -> int:
    """Return how many samples a batch holds."""
    return max((len(array) for array in inputs.values() if array.ndim), default=1)


def _plain(node: ir.Node) -> bool:
    bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    known = rank(node.outputs[0]) is not None
    return node.op_type in WEIGHTED and known and (bias is None or constant(bias))
