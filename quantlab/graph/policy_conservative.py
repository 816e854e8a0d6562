"""Where Q/DQ go when accuracy comes first: TensorRT's rules, after rules that leave more out.

What is left out is little of the work and much of the error: the layer that reads the input has few
channels, the one that makes the output has nothing behind it that averages its error, and a
depthwise convolution has 9 products for each value that it reads, and one channel's range for each.
"""

import onnx_ir as ir

from quantlab.graph.elementwise import ELEMENT_WISE, function_of
from quantlab.graph.moving import moved
from quantlab.graph.place_by import place_by
from quantlab.graph.policy_tensorrt import RULES as TENSORRT
from quantlab.graph.rules import FLOAT, Choice, Known, Rule
from quantlab.graph.rules_config import CONFIG
from quantlab.graph.rules_layers import first_layer, weight_index, weights_shape
from quantlab.graph.sites import Placement
from quantlab.graph.view import WEIGHTED, attribute_int, constant

PAPER = "Nagel et al., A White Paper on Neural Network Quantization, arXiv:2106.08295"

LAST = ELEMENT_WISE | {"Softmax", "LogSoftmax"}
"""What may stand between the last layer and an output."""


def _first_layer(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type in WEIGHTED and first_layer(node) else None


def _last_layer(node: ir.Node, _: Known) -> Choice | None:
    if node.op_type not in WEIGHTED:
        return None
    pending, seen = list(node.outputs), set(node.outputs)
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return FLOAT
        for reader, index in value.uses():
            if reader.op_type in LAST or index in moved(reader):
                pending += [made for made in reader.outputs if made not in seen]
                seen.update(reader.outputs)
    return None


def _depthwise(node: ir.Node, _: Known) -> Choice | None:
    grouped = node.op_type == "Conv" and attribute_int(node, "group", 1) > 1
    alone = grouped and weight_index(node) is not None and weights_shape(node)[1] == 1
    return FLOAT if alone else None


def _float_gate(node: ir.Node, _: Known) -> Choice | None:
    gates = node.op_type == "Mul" and not any(map(constant, node.inputs))
    return FLOAT if gates and function_of(node.outputs[0]) is None else None


CAUTION: tuple[Rule, ...] = (
    Rule(
        "first-layer",
        "it reads the input: few channels, little work, and its error goes through every layer",
        PAPER,
        _first_layer,
    ),
    Rule(
        "last-layer",
        "it makes an output: no later layer averages its error",
        PAPER,
        _last_layer,
    ),
    Rule(
        "depthwise",
        "a depthwise convolution has one range a channel, and one scale serves all of them; it is "
        "bound by memory, not by arithmetic",
        PAPER,
        _depthwise,
    ),
    Rule(
        "float-gate",
        "what a gate scales would be rounded before and behind it",
        PAPER,
        _float_gate,
    ),
)

RULES: tuple[Rule, ...] = (*CONFIG, *CAUTION, *TENSORRT[len(CONFIG) :])


def place_conservative(model: ir.Model) -> Placement:
    """Place by ``RULES``; the activations are INT8, symmetric, zero point 0."""
    return place_by(RULES, model)
