"""Where OpenVINO's CPU plugin wants Q/DQ: TensorRT's rules, less what it has no INT8 kernel for.

A tensor that is never negative becomes UINT8 with zero point 0, which halves its step.  Behind most
nodes that move integers OpenVINO needs no second pair to know that they are integers, and would
convert them once more: such pairs are left out.  And it fuses a pair into the layer before it only
if no Reshape stands between.

Source: run-time models of OpenVINO 2026.4 (tests/graph/test_integer_kernels.py reads them).
"""

import onnx_ir as ir

from quantlab.graph.moving import VIEWS, moved
from quantlab.graph.place_by import place_by
from quantlab.graph.policy_tensorrt import RULES as TENSORRT
from quantlab.graph.rules import FLOAT, Choice, Known, Rule
from quantlab.graph.rules_config import CONFIG
from quantlab.graph.rules_joins import moves_integers
from quantlab.graph.rules_layers import weights_shape
from quantlab.graph.sites import Placement
from quantlab.graph.view import PRODUCTS, attribute_int

MODEL = "OpenVINO 2026.4, run-time models"


def _grouped_deconvolution(node: ir.Node, _: Known) -> Choice | None:
    grouped = node.op_type == "ConvTranspose" and attribute_int(node, "group", 1) > 1
    return FLOAT if grouped else None


def _interpolation(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == "Resize" and not moved(node) else None


def _vector_product(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type in PRODUCTS and len(weights_shape(node)) == 1 else None


CARRIERS = VIEWS | {
    *("Concat", "Split", "Slice", "Transpose", "Gather", "Expand", "DepthToSpace", "Resize"),
    "MaxPool",
}
"""Operators behind which OpenVINO knows integers again; behind a Pad of signed ones it does not."""


def _integer_view(node: ir.Node, known: Known) -> Choice | None:
    return moves_integers(node, known) if node.op_type in VIEWS else None


MISSING: tuple[Rule, ...] = (
    Rule(
        "grouped-deconvolution",
        "OpenVINO has no INT8 kernel for a deconvolution in groups",
        MODEL,
        _grouped_deconvolution,
    ),
    Rule(
        "interpolation",
        "OpenVINO interpolates in floating point",
        MODEL,
        _interpolation,
    ),
    Rule(
        "integer-view",
        "quantized before it is reshaped, so that the layer before it gives integers",
        MODEL,
        _integer_view,
    ),
)

VECTOR = Rule("vector-product", "its weights are a vector, not a matrix", MODEL, _vector_product)
"""Stands in place of TensorRT's rule for narrow products, which is about the tiles of its kernels:
OpenVINO computes narrow products in INT8."""

RULES: tuple[Rule, ...] = (
    *CONFIG,
    *MISSING,
    *(VECTOR if rule.name == "narrow-product" else rule for rule in TENSORRT[len(CONFIG) :]),
)


def place_openvino(model: ir.Model) -> Placement:
    """Place by ``RULES``, without the pairs behind nodes that move integers."""
    return place_by(RULES, model, carried_by=CARRIERS)
