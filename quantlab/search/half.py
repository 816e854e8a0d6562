"""What FP16 makes of a model, in FP32: every tensor is rounded to FP16 and widened again.

ONNX Runtime's CPU kernels compute an FP16 model in FP32 and leave out the casts between its nodes,
so there FP16 overflows nowhere.  Casts that are written into an FP32 model are done: beyond 65504
comes infinity, as on a device.  Weights are clipped, as ``to_fp16`` does.

Limits: sums within a node are FP32's, and the model's outputs are not rounded.
"""

import numpy as np
import onnx_ir as ir

from quantlab.graph.passes import copy
from quantlab.graph.pins import kept_in_fp32
from quantlab.graph.sites import tensors
from quantlab.graph.to_fp16 import LARGEST

Uses = list[tuple[ir.Node, int]]


def half(model: ir.Model) -> ir.Model:
    """Return a model that computes as ``model`` does in FP16, but for nodes pinned to FP32.

    Args:
        model: FP32, with or without Q/DQ, and with the nodes marked; stays as it is.
    """
    made, wide = copy(model), set(kept_in_fp32(model))
    for value in tuple(made.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT and any(n.name not in wide for n in value.consumers()):
            _round_constant(value)
    for number, value in enumerate(list(tensors(made))):
        producer = value.producer()
        everywhere = producer is not None and producer.name not in wide
        uses = [(u.node, u.idx) for u in value.uses() if everywhere or u.node.name not in wide]
        if value.dtype == ir.DataType.FLOAT and uses:
            _round(made.graph, value, uses, str(number))
    made.graph.sort()
    return made


def _round_constant(value: ir.Value) -> None:
    if value.const_value is not None:
        clipped = np.clip(value.const_value.numpy(), -LARGEST, LARGEST)
        value.const_value = ir.tensor(
            clipped.astype(np.float16).astype(np.float32), name=value.name
        )


def _round(graph: ir.Graph, value: ir.Value, uses: Uses, name: str) -> None:
    narrow = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT16})
    widened = ir.node("Cast", narrow.outputs, attributes={"to": ir.DataType.FLOAT})
    narrow.outputs[0].name, widened.outputs[0].name = f"quantlab.half.{name}", f"quantlab.{name}"
    for node, index in uses:
        node.replace_input_with(index, widened.outputs[0])
    graph.extend([narrow, widened])
