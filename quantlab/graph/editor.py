"""Adding nodes and constants to a graph under names that are still free."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.errors import ModelError


class Editor:
    """A model that is being changed, with its nodes and tensors by name."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._nodes = {str(node.name): node for node in model.graph}
        self._values = {str(value.name): value for value in model.graph.inputs}
        self._values |= {str(value.name): value for node in model.graph for value in node.outputs}
        self._values |= dict(model.graph.initializers)
        self._taken = set(self._values) | set(self._nodes)
        for node in model.graph.all_nodes():
            self._taken |= {str(node.name), *(str(value.name) for value in node.outputs)}

    def tensor(self, name: str) -> ir.Value:
        """Return a tensor of the graph.

        Raises:
            ModelError: there is none of this name.
        """
        if name not in self._values:
            raise ModelError(f"tensor {name!r} is not in the graph; place this very model again")
        return self._values[name]

    def node(self, name: str) -> ir.Node:
        """Return a node of the graph.

        Raises:
            ModelError: there is none of this name.
        """
        if name not in self._nodes:
            raise ModelError(f"node {name!r} is not in the graph; place this very model again")
        return self._nodes[name]

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """Add an initializer called ``name``, or like it if that is taken."""
        free = self._free(name)
        tensor = ir.tensor(array, name=free)
        value = ir.Value(
            name=free,
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
        )
        self.model.graph.register_initializer(value)
        return value

    def input(self, name: str, dtype: ir.DataType) -> ir.Value:
        """Add a scalar graph input called ``name``, or like it if that is taken."""
        value = ir.Value(name=self._free(name), type=ir.TensorType(dtype), shape=ir.Shape(()))
        self.model.graph.inputs.append(value)
        return value

    def insert(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        axis: int | None = None,
        before: ir.Node | None = None,
    ) -> ir.Value:
        """Add a node with one output, both called ``name`` or like it if that is taken.

        Args:
            op: operator type.
            inputs: its inputs.
            name: for the node and its output.
            axis: its ``axis`` attribute, None for none.
            before: the node it goes in front of; at the end of the graph if None.
        """
        free = self._free(name)
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        node = ir.Node("", op, inputs, attributes, name=free)
        node.outputs[0].name = free
        if before is None:
            self.model.graph.append(node)
        else:
            self.model.graph.insert_before(before, node)
        return node.outputs[0]

    def remove_unused(self, value: ir.Value) -> None:
        """Drop an initializer that nothing reads any more."""
        if not value.uses() and not value.is_graph_output():
            self.model.graph.initializers.pop(str(value.name), None)

    def _free(self, name: str) -> str:
        free, count = name, 1
        while free in self._taken:
            count += 1
            free = f"{name}_{count}"
        self._taken.add(free)
        return free
