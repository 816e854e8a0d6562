"""The prepared model: what is calibrated, built and measured is this, and nothing else."""

from dataclasses import dataclass

import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph import PASSES


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model after every pass.

    Attributes:
        model: valid ONNX, opset 13 or newer, with the inputs and outputs of the original.
        applied: names of the passes that changed something, in order.
    """

    model: ir.Model
    applied: tuple[str, ...]


def prepare(model: ir.Model) -> Prepared:
    """Run every pass of PASSES in order; ``model`` stays as it is.

    Raises:
        ModelError: already quantized, or a pass cannot do its work.
    """
    quantized = [n for n in model.graph.all_nodes() if n.op_type == "QuantizeLinear"]
    if quantized:
        raise ModelError(
            f"the model is quantized already: {len(quantized)} QuantizeLinear nodes, the first "
            f"is {quantized[0].name!r}; give the FP32 model it was made from"
        )
    applied = []
    for name, run in PASSES.items():
        result = run(model)
        model = result.model
        if result.changed:
            applied.append(name)
    return Prepared(model, tuple(applied))
