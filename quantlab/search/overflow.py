"""Which nodes have values that FP16 cannot hold: beyond 65504.

Every float tensor's largest magnitude is an output of its own, so one batch's numbers are in memory
and not its activations.
"""

import numpy as np
import onnx_ir as ir

from quantlab.engines.ort_session import run
from quantlab.graph.editor import Editor
from quantlab.graph.passes import copy
from quantlab.graph.reduce import reduce
from quantlab.graph.sites import tensors
from quantlab.graph.to_fp16 import LARGEST
from quantlab.simulate import Batches, session


def beyond_fp16(model: ir.Model, batches: Batches) -> tuple[str, ...]:
    """Return the nodes that read, make or hold a number beyond FP16's, in graph order.

    Args:
        model: in FP32; stays as it is.
        batches: begins anew a pass over samples.
    """
    editor = Editor(copy(model))
    made: dict[str, str] = {}
    for value in list(tensors(editor.model)):
        magnitude = editor.insert("Abs", (value,), f"{value.name}_magnitude")
        magnitude.type = value.type
        largest = reduce(editor, "ReduceMax", magnitude, None, keepdims=False)
        largest.shape = ir.Shape(())
        editor.model.graph.outputs.append(largest)
        made[str(value.name)] = str(largest.name)
    compiled, seen = session(editor.model), dict.fromkeys(made, 0.0)
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
