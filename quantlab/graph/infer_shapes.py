"""Shapes and types of every tensor, as far as onnx can tell them."""

import onnx_ir as ir
from onnx_ir.passes import common

from quantlab.graph.passes import PassResult, copy


def infer_shapes(model: ir.Model) -> PassResult:
    """Annotate tensors; what cannot be inferred stays unknown."""
    result = common.ShapeInferencePass(strict_mode=False, data_prop=True)(copy(model))
    return PassResult(result.model, result.modified)
