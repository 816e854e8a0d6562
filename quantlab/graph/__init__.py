"""The ONNX graph: reading it, preparing it, deciding where Q/DQ goes, inserting it, FP16.

A pass is one file and one line in ``PASSES``; the order is the order of ``prepare``.
"""

from quantlab.graph.add_negated import add_negated
from quantlab.graph.fold_batchnorm import fold_batchnorm
from quantlab.graph.fold_bias import fold_bias
from quantlab.graph.fold_constants import fold_constants
from quantlab.graph.fold_dequantize import fold_dequantize
from quantlab.graph.infer_shapes import infer_shapes
from quantlab.graph.normalize import normalize
from quantlab.graph.passes import Pass
from quantlab.graph.raise_opset import raise_opset

PASSES: dict[str, Pass] = {
    "normalize": normalize,
    "raise_opset": raise_opset,
    "fold_dequantize": fold_dequantize,
    "fold_constants": fold_constants,
    "fold_bias": fold_bias,
    "fold_batchnorm": fold_batchnorm,
    "add_negated": add_negated,
    "infer_shapes": infer_shapes,
}
