"""One form for all models: no functions, weights as initializers, every node with its own name.

Models of IR version 3 (opset 9 and older) list their weights among the inputs, where they could be
overridden; exporters differ in keeping weights in Constant nodes.  Later passes look for
initializers only.
"""

import onnx_ir as ir
from onnx_ir.passes import common

from quantlab.graph.passes import PassResult, copy


def normalize(model: ir.Model) -> PassResult:
    """Inline functions, lift constants to initializers, give unnamed nodes a name."""
    steps = ir.passes.Sequential(
        common.RemoveInitializersFromInputsPass(),
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
    )
    result = steps(copy(model))
    return PassResult(result.model, result.modified)
