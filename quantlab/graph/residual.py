"""Which input of an Add is the residual one.

Engines fuse an Add into the convolution of one of its branches and read the other one as INT8.
Quantizing the fused branch too would cut the convolution off from the Add, so it is found first.
"""

import onnx_ir as ir

from quantlab.graph.elementwise import function_of
from quantlab.graph.normalization import normalizes
from quantlab.graph.rules import Known
from quantlab.graph.view import CONVOLUTIONS, WEIGHTED


def identity_branch(node: ir.Node, known: Known) -> int | None:
    """Return which input of an Add is the residual one, None if the Add is no residual.

    The other input is the output of a convolution that the Add is fused into.  Where both are (a
    downsampling shortcut), the branch with more nodes since the fork computes last and is fused.

    An input of the model is residual only if a quantized layer reads it as well.  Then the Add is
    given what that layer is given: a network that estimates what to add to its input makes up for
    the rounding of what it has seen.

    Args:
        node: an Add.
        known: says whether a convolution is quantized.
    """
    left, right = node.inputs
    if left is None or right is None or left is right or _broadcast(left, right):
        return None
    fused = [_fused(value, node, known) for value in (left, right)]
    if not any(fused):
        return None
    if all(fused):
        return 1 if _depth(left, right) >= _depth(right, left) else 0
    residual = fused.index(False)
    value = (left, right)[residual]
    taken = not value.is_graph_input() or _read_in_integers(value, known)
    return residual if taken else None


def normalized_stream(node: ir.Node) -> bool:
    """Whether a branch of an Add normalizes what it read from the other, as in a transformer."""
    left, right = node.inputs
    if left is None or right is None:
        return False
    return any(map(normalizes, _since(left, right) | _since(right, left)))


def _fused(value: ir.Value, add: ir.Node, known: Known) -> bool:
    """Whether ``value`` is what a quantized convolution gives to ``add`` alone.

    Followed backwards are element-wise functions that alone read their source.
    """
    readers = frozenset({add})
    while not value.is_graph_output() and readers.issuperset(value.consumers()):
        node = value.producer()
        if node is not None and node.op_type in CONVOLUTIONS:
            return known.quantized(node)
        function = function_of(value)
        if function is None:
            return False
        value, readers = function.source, function.nodes
    return False


def _read_in_integers(value: ir.Value, known: Known) -> bool:
    return any(node.op_type in WEIGHTED and known.quantized(node) for node in value.consumers())


def _broadcast(left: ir.Value, right: ir.Value) -> bool:
    if left.shape is None or right.shape is None:
        return False
    if len(left.shape) != len(right.shape):
        return True
    pairs = zip(left.shape, right.shape, strict=True)
    return any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _depth(value: ir.Value, other: ir.Value) -> int:
    """Longest path, in nodes, from ``value`` back to the ancestors it shares with ``other``."""
    own = _since(value, other)
    end = value.producer()
    depths: dict[ir.Node | None, int] = {}
    for node in () if end is None or end.graph is None else end.graph:  # sources come first
        if node in own:
            before = (depths.get(v.producer(), 0) for v in node.inputs if v is not None)
            depths[node] = 1 + max(before, default=0)
    return depths.get(end, 0)


def _since(value: ir.Value, other: ir.Value) -> set[ir.Node]:
    """Return what ``value`` is computed by and ``other`` is not."""
    return _ancestors(value) - _ancestors(other)


def _ancestors(value: ir.Value) -> set[ir.Node]:
    found: set[ir.Node] = set()
    pending = [value.producer()]
    while pending:
        node = pending.pop()
        if node is not None and node not in found:
            found.add(node)
            pending.extend(v.producer() for v in node.inputs if v is not None)
    return found
