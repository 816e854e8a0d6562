"""Where TensorRT wants Q/DQ, as a table of rules.

The first rule of ``RULES`` that speaks for a node decides.  Quantized are the inputs of operators
that gain from INT8, never their outputs: the quantization of an output belongs to whoever reads it
(NVIDIA's recommended placement: "quantize all inputs of weighted operations", "do not quantize
the outputs of weighted operations", "do not simulate batch-normalization and ReLU fusions").

The activations are INT8, symmetric, zero point 0.  OpenVINO runs the same model with INT8 kernels.
"""

import onnx_ir as ir

from quantlab.graph.place_by import place_by
from quantlab.graph.rules import Rule
from quantlab.graph.rules_config import CONFIG
from quantlab.graph.rules_joins import ADDS, MOVES, POOLS
from quantlab.graph.rules_layers import LAYERS, RECURRENT
from quantlab.graph.sites import Placement

__all__ = ["RECURRENT", "RULES", "place_tensorrt"]

RULES: tuple[Rule, ...] = (*CONFIG, *LAYERS, *ADDS, *POOLS, *MOVES)
"""In order; a node that no row speaks for is moved or fused, and has no decision."""


def place_tensorrt(model: ir.Model) -> Placement:
    """Place by ``RULES``."""
    return place_by(RULES, model)
