"""The prepared model: what is calibrated, built and measured is this, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph import PASSES
from quantlab.graph.qdq_points import quantized
from quantlab.graph.view import STANDARD, attribute_int


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
        ModelError: already quantized, in training mode, or a pass cannot do its work.
    """
    before = quantized(model)
    if before:
        raise ModelError(
            f"the model is quantized already: {len(before)} nodes quantize or compute in integers, "
            f"the first is {before[0].op_type} {before[0].name!r}; give the FP32 model it was made "
            "from, or see what TensorRT makes of it with 'quantlab migrate MODEL.onnx'"
        )
    training = [node for node in _nodes(model) if _trains(node)]
    if training:
        first = training[0].name or training[0].outputs[0].name
        raise ModelError(
            f"the model is in training mode: {len(training)} nodes compute from the batch or at "
            f"random, the first is {training[0].op_type} {first!r}; export the model again for "
            "inference (in PyTorch after model.eval())"
        )
    applied = []
    for name, run in PASSES.items():
        result = run(model)
        model = result.model
        if result.changed:
            applied.append(name)
    return Prepared(model, tuple(applied))


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node, also of subgraphs and functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _trains(node: ir.Node) -> bool:
    """Whether a node normalizes by the batch's own statistics or drops values at random.

    Up to opset 13 BatchNormalization says so by having more outputs than one.
    """
    if node.domain not in STANDARD:
        return False
    if node.op_type == "BatchNormalization":
        extra = any(value.name for value in node.outputs[1:])
        return extra or attribute_int(node, "training_mode", 0) != 0
    if node.op_type == "Dropout":
        switch = node.inputs[2] if len(node.inputs) > 2 else None
        known = None if switch is None else ir.convenience.get_const_tensor(switch)
        return known is not None and bool(known.numpy())
    return False
