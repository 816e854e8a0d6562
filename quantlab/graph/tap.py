"""A model whose inner tensors are outputs, for collecting activations."""

from collections.abc import Sequence

import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.passes import copy


def tap(model: ir.Model, tensors: Sequence[str]) -> ir.Model:
    """Return a copy that also outputs ``tensors``, after its own outputs, in the order given.

    A graph input gets no output of its own: the caller has it already.  A tensor whose type is not
    known stays without one: ONNX Runtime knows the operators that onnx does not.

    Raises:
        ModelError: a tensor is not in the graph.
    """
    tapped = copy(model)
    graph = tapped.graph
    values = {value.name: value for node in graph for value in node.outputs}
    given = {value.name for value in graph.inputs} | {value.name for value in graph.outputs}
    missing = [name for name in tensors if name not in values and name not in given]
    if missing:
        raise ModelError(
            f"{len(missing)} tensors are not in the graph, the first is {missing[0]!r}; "
            "calibrate the prepared model, not the original"
        )
    for name in dict.fromkeys(tensors):
        if name not in given:
            graph.outputs.append(values[name])
    return tapped
