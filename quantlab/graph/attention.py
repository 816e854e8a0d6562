"""Attention: the two products of activations around a Softmax, and their sizes.

Scores are query times key; between them and the Softmax stand a scale and a mask.  The mix is the
Softmax's output times value.
"""

import onnx_ir as ir

HEADS = (16, 32, 64)
"""Head sizes for which TensorRT has an INT8 attention kernel."""

TOKENS = 512
"""Longest sequence for which it has one."""

BETWEEN = frozenset({"Mul", "Div", "Add", "Sub", "Where", "Cast", "Clip", "Max", "Reshape", "Tanh"})
"""What stands between the scores and the Softmax, or between the Softmax and the mix."""

FEW = 6
"""Nodes between them at most."""


def in_attention(node: ir.Node) -> bool:
    """Whether a product of activations is the scores or the mix of an attention."""
    return _makes_scores(node) or _mixes(node)


def scores_between(node: ir.Node) -> frozenset[ir.Node]:
    """Return what stands between the scores that a product makes and their Softmax."""
    reached, found = [node], set[ir.Node]()
    for _ in range(FEW):
        after = [reader for n in reached for out in n.outputs for reader in out.consumers()]
        reached = list({n for n in after if n.op_type in BETWEEN and n not in found})
        found.update(reached)
    return frozenset(n for n in found if _makes_scores(n))


def has_kernel(node: ir.Node) -> bool:
    """Whether TensorRT has an INT8 kernel for an attention of these sizes; no if not known."""
    left, right = (_shape(value) for value in node.inputs[:2])
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return False
    rows, inner, columns = left[-2], left[-1], right[-1]
    head, tokens = (inner, (rows, columns)) if _makes_scores(node) else (columns, (rows, inner))
    return head in HEADS and all(isinstance(size, int) and size <= TOKENS for size in tokens)


def _makes_scores(node: ir.Node) -> bool:
    reached = [node]
    for _ in range(FEW):
        readers = [reader for n in reached for out in n.outputs for reader in out.consumers()]
        if any(reader.op_type == "Softmax" for reader in readers):
            return True
        reached = list(dict.fromkeys(n for n in readers if n.op_type in BETWEEN))
    return False


def _mixes(node: ir.Node) -> bool:
    value = node.inputs[0]
    for _ in range(FEW):
        before = None if value is None else value.producer()
        if before is None:
            return False
        if before.op_type == "Softmax":
            return True
        if before.op_type not in BETWEEN:
            return False
        value = before.inputs[0]
    return False


def _shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)
