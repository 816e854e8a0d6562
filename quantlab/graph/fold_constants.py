"""Computing once what does not depend on the input.

Weights that are stored small (FP16 or INT8 behind Cast, Mul or DequantizeLinear), transposed or
reshaped become plain initializers that placement can quantize; Identity and inference-time Dropout
go away.  Nothing is folded that would grow: a few bytes of Tile or Expand can stand for gigabytes.
"""

import math

import onnx_ir as ir
from onnx_ir.passes import common

from quantlab.errors import ModelError
from quantlab.graph.passes import PassResult, copy

GROWTH_BYTES = 1 << 20
"""A folded tensor may be this much larger than what it was made from."""

GROWTH_FACTOR = 8
"""... or this many times as large: INT4 weights become FP32."""


def fold_constants(model: ir.Model) -> PassResult:
    """Replace nodes with constant inputs by their value.

    Raises:
        ModelError: a constant node breaks its operator's rules.
    """
    from onnxscript import optimizer

    folded = copy(model)
    before = _signature(folded)
    try:
        optimizer.fold_constants_ir(folded, onnx_shape_inference=True, should_fold=_worthwhile)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"constant folding failed: {error.__cause__ or error}") from error
    steps = ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.NameFixPass(),
    )
    done = steps(folded).model
    changed = _signature(done) != before
    return PassResult(done if changed else model, changed)


def _worthwhile(node: ir.Node) -> bool:
    constants = [value.const_value for value in node.inputs if value is not None]
    held = sum(tensor.nbytes for tensor in constants if tensor is not None)
    return all(
        value.shape is not None
        and value.dtype is not None
        and value.shape.is_static()
        and math.prod(value.shape.numpy()) * value.dtype.itemsize
        <= max(GROWTH_FACTOR * held, held + GROWTH_BYTES)
        for value in node.outputs
    )


def _signature(model: ir.Model) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (node.op_type, *(str(v.name) for v in (*node.inputs, *node.outputs) if v is not None))
        for node in model.graph.all_nodes()
    )
