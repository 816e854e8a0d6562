"""Folding BatchNormalization into the Conv, ConvTranspose or Gemm before it.

``gamma * (w @ x + b - mean) / std + beta`` is ``w' @ x + b'`` with ``w' = w * gamma / std``.  What
is calibrated must be what the engines run, and they all fold it.  The tensor after the
normalization keeps its name; the one between the two nodes is gone.
"""

import onnx_ir as ir
from onnx_ir.passes import common

from quantlab.graph.passes import PassResult, copy


def fold_batchnorm(model: ir.Model) -> PassResult:
    """Fold every BatchNormalization whose weights are constant and read by nothing else."""
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules.common import (
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    )

    rules = (
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    )
    folded = copy(model)
    layers = {
        str(node.outputs[0].name): node.inputs[0].producer()
        for node in folded.graph
        if node.op_type == "BatchNormalization" and node.inputs[0] is not None
    }
    names = {made: layer.name for made, layer in layers.items() if layer is not None}
    steps = ir.passes.Sequential(RewritePass(rules), common.RemoveUnusedNodesPass())
    result = steps(folded)
    for node in result.model.graph:
        made = str(node.outputs[0].name)
        if made in names and node.op_type != "BatchNormalization":
            node.name = names[made]  # the rules make a new node; reports speak of the old one
    return PassResult(result.model, result.modified)
