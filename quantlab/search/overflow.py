"""Which nodes have values that FP16 cannot hold: beyond 65504.

Every float tensor's largest magnitude is an output of its own, so one batch's numbers are in memory
and not its activations.
"""

import numpy as np
import onnx_ir as ir

from quantlab.engines.ort_session import run
from quantlab.graph.passes import copy
from quantlab.graph.sites import tensors
from quantlab.graph.to_fp16 import LARGEST
from quantlab.simulate import Batches, session


def beyond_fp16(model: ir.Model, batches: Batches) -> tuple[str, ...]:
    """Return the nodes that read, make or hold a number beyond FP16's, in graph order.

    Args:
        model: in FP32; stays as it is.
        batches: begins anew a pass over samples.
    """
    watched = copy(model)
    made: dict[str, str] = {}
    for index, value in enumerate(list(tensors(watched))):
        magnitude = ir.node("Abs", [value])
        largest = ir.node("ReduceMax", magnitude.outputs, attributes={"keepdims": 0})
        made[str(value.name)] = largest.outputs[0].name = f"quantlab.largest.{index}"
        magnitude.outputs[0].name = f"quantlab.magnitude.{index}"
        largest.outputs[0].dtype, largest.outputs[0].shape = ir.DataType.FLOAT, ir.Shape(())
        watched.graph.extend([magnitude, largest])
        watched.graph.outputs.append(largest.outputs[0])
    compiled, seen = session(watched), dict.fromkeys(made, 0.0)
    for inputs in batches():
        found = run(compiled, list(made.values()), inputs)
        for tensor, output in made.items():
            seen[tensor] = float(np.fmax(seen[tensor], found[output]))
    wide = {tensor for tensor, largest in seen.items() if largest > LARGEST}
    return tuple(
        str(node.name)
        for node in model.graph
        if any(
            value is not None and (value.name in wide or _too_large(value))
            for value in (*node.inputs, *node.outputs)
        )
    )


def _too_large(value: ir.Value) -> bool:
    """Whether constant weights have finite numbers beyond FP16's."""
    stored = value.const_value
    if stored is None or stored.dtype != ir.DataType.FLOAT:
        return False
    array = stored.numpy()
    return bool((np.abs(array[np.isfinite(array)]) > LARGEST).any())
