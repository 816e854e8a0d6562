"""Operators that move elements and compute nothing: Q/DQ before them are Q/DQ behind them.

What comes out is on the grid of what went in, so integers can be moved as well as floats, at a
quarter of the bytes.  MaxPool chooses among elements and commutes as well.
"""

from collections.abc import Callable, Iterator

import onnx_ir as ir

from quantlab.graph.view import constant

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Operators that give the same elements in the same order: they cost nothing."""

COPIES = frozenset(
    {
        *("Concat", "Split", "Slice", "Pad", "Gather", "Transpose", "Expand", "Tile"),
        *("DepthToSpace", "SpaceToDepth", "Resize"),
    }
)
"""Operators that copy elements to other places; Pad and Resize only in some of their modes."""


def moved(node: ir.Node) -> tuple[int, ...]:
    """Return the inputs whose elements a node hands on; none if it computes."""
    if node.op_type == "Concat":
        return tuple(range(len(node.inputs)))
    if node.op_type in VIEWS or (node.op_type in COPIES and _exactly(node)):
        return () if constant(node.inputs[0]) else (0,)
    return ()


def _exactly(node: ir.Node) -> bool:
    """Whether the elements of the output are those of the input, or 0, in this mode."""
    if node.op_type == "Pad" and _mode(node, "constant") == "constant":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        return value is None or (value.const_value is not None and not value.const_value.numpy())
    return node.op_type != "Resize" or _mode(node, "nearest") == "nearest"


def _mode(node: ir.Node, default: str) -> str:
    found = node.attributes.get("mode")
    return default if found is None else found.as_string()


def commutes(node: ir.Node) -> tuple[int, ...]:
    """Return the inputs on whose grid the outputs are; none if the outputs need their own."""
    return (0,) if node.op_type == "MaxPool" else moved(node)


def ends(node: ir.Node) -> Iterator[tuple[ir.Node | None, int]]:
    """Yield who reads what a node gives: node and input, behind all that commutes.

    None stands for the model's user, who reads an output.
    """
    pending, seen = list(node.outputs), set(node.outputs)
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            yield None, 0
        for reader, index in value.uses():
            if index in commutes(reader):
                pending += [out for out in reader.outputs if out not in seen]
                seen.update(reader.outputs)
            else:
                yield reader, index


def origins(
    node: ir.Node, through: Callable[[ir.Node], tuple[int, ...]] = commutes
) -> Iterator[ir.Value]:
    """Yield the tensors that the elements which a node moves come from, but constants.

    Args:
        node: that moves elements, or is otherwise looked through.
        through: which inputs of a node are looked through; none where the way ends.
    """
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        for value in (current.inputs[index] for index in through(current)):
            before = None if value is None else value.producer()
            if before is not None and through(before):
                if before not in seen:
                    seen.add(before)
                    pending.append(before)
            elif value is not None and not constant(value):
                yield value
