"""One form for all models: no functions, weights as initializers, every node with its own name.

Models of IR version 3 (opset 9 and older) list their weights among the inputs, where they could be
overridden; exporters differ in keeping weights in Constant nodes.  Later passes look for
initializers only.  An open axis of an input that has no real name, as where Paddle writes "?" or
-1, loses it: axes of one name have one size in ONNX, and TensorRT holds a model to that.
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
    opened = [_open(value) for value in result.model.graph.inputs]
    return PassResult(result.model, result.modified or any(opened))


def _open(value: ir.Value) -> bool:
    """Take the names off axes that have no real one; return whether there were any."""
    if value.shape is None or not any(map(_nameless, value.shape)):
        return False
    value.shape = ir.Shape([None if _nameless(dim) else dim for dim in value.shape])
    return True


def _nameless(dim: int | ir.SymbolicDim) -> bool:
    if isinstance(dim, int):
        return dim < 0
    return dim.value is not None and not any(letter.isalnum() for letter in dim.value)
