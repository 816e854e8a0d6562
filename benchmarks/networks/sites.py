"""Where channels of an ONNX model can be scaled without changing what it computes.

A set of tensors is tied by operators that commute with a positive factor for each channel (ReLU,
pooling, Add).  If everything that writes into the set is a convolution or Gemm, and everything
that reads from it too, then writing channel c times s and reading it by weights over s changes
nothing.  A depthwise convolution reads one such set and writes another.

The output of a LayerNormalization can be scaled likewise, through its own scale and bias, where
only products with constants read it.

Limits: channels are axis 1, for LayerNormalization the last axis; no subgraphs.  ReLU6, sigmoids
        and GELU commute with no factor, so a set that touches them is no site.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

COMMUTES = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"}


@dataclass(frozen=True, slots=True)
class End:
    """A weight that writes or reads channels.

    Attributes:
        node: index of the node.
        slot: which of its inputs the weight is.
        axis: the channels' axis in the weight.
    """

    node: int
    slot: int
    axis: int


@dataclass(frozen=True, slots=True)
class Site:
    """Channels that can be scaled.

    Attributes:
        kind: pair (one writer, one reader), stream (several, as around a residual Add) or norm.
        tensors: what changes, sorted.
        channels: how many.
        writers: weights and biases to multiply.
        readers: weights to divide.
    """

    kind: str
    tensors: tuple[str, ...]
    channels: int
    writers: tuple[End, ...]
    readers: tuple[End, ...]


class Wiring:
    """Who writes and reads each tensor, and the sizes of the constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.shapes = {t.name: tuple(t.dims) for t in graph.initializer}
        self.values = {t.name: t for t in graph.initializer}
        self.producer = {name: i for i, n in enumerate(self.nodes) for name in n.output if name}
        self.consumers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for slot, name in enumerate(node.input):
                self.consumers[name].append((index, slot))
        self.ends = {v.name for v in (*graph.input, *graph.output)}

    def attribute(self, index: int, name: str, default: int) -> int:
        """Return an integer attribute."""
        found = [a.i for a in self.nodes[index].attribute if a.name == name]
        return int(found[0]) if found else default

    def constants(self, index: int, *slots: int) -> bool:
        """Whether these inputs are initializers, those left out set aside."""
        names = [n for slot, n in enumerate(self.nodes[index].input) if slot in slots and n]
        return bool(names) and all(name in self.shapes for name in names)

    def commutes(self, index: int) -> bool:
        """Whether a factor for each channel passes this node."""
        node = self.nodes[index]
        if node.op_type == "Add":
            return not any(name in self.shapes for name in node.input)
        if node.op_type == "Flatten":  # 1x1 images: features are channels
            before = self.producer.get(node.input[0])
            return before is not None and self.nodes[before].op_type == "GlobalAveragePool"
        if node.op_type == "ReduceMean":
            return self._over_places(index)
        return node.op_type in COMMUTES

    def _over_places(self, index: int) -> bool:
        node = self.nodes[index]
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
        if len(node.input) > 1 and node.input[1] in self.values:
            axes = numpy_helper.to_array(self.values[node.input[1]]).tolist()
        return sorted(axes) in ([2, 3], [-2, -1])

    def writes(self, index: int) -> list[End]:
        """Return the weight and bias that write a node's output channels; empty: it is no site."""
        node = self.nodes[index]
        if node.op_type == "Conv" and self.constants(index, 1, 2):
            return [End(index, slot, 0) for slot in range(1, len(node.input)) if node.input[slot]]
        if node.op_type == "Gemm" and self.constants(index, 1, 2):
            axis = 0 if self.attribute(index, "transB", 0) else 1
            biases = [End(index, 2, 0)] if len(node.input) > 2 else []
            return [End(index, 1, axis), *biases]
        return []

    def reads(self, index: int, slot: int) -> list[End]:
        """Return the weight that reads the channels of a node's input; empty: it is no site."""
        node = self.nodes[index]
        if slot != 0 or not self.constants(index, 1):
            return []
        shape = self.shapes[node.input[1]]
        if node.op_type == "Conv":
            group = self.attribute(index, "group", 1)
            if group == 1:
                return [End(index, 1, 1)]
            return [End(index, 1, 0)] if group == shape[0] and shape[1] == 1 else []
        if node.op_type == "Gemm" and not self.attribute(index, "transA", 0):
            return [End(index, 1, 1 if self.attribute(index, "transB", 0) else 0)]
        if node.op_type == "MatMul" and len(shape) == 2:
            return [End(index, 1, 0)]
        return []


def find(model: onnx.ModelProto) -> list[Site]:
    """Return every site, in the order of the nodes."""
    wiring = Wiring(model)
    return [*_scalable(wiring), *_norms(wiring)]


def _scalable(wiring: Wiring) -> Iterator[Site]:
    for tensors in _tied(wiring):
        writers: list[End] = []
        readers: list[End] = []
        adds = any(wiring.nodes[i].op_type == "Add" for t in tensors for i, _ in _users(wiring, t))
        if not all(_collect(wiring, tensor, writers, readers) for tensor in tensors):
            continue
        sizes = {wiring.shapes[wiring.nodes[e.node].input[e.slot]][e.axis] for e in writers}
        if not readers or len(sizes) != 1:
            continue
        nodes = {e.node for e in writers}, {e.node for e in readers}
        pair = not adds and all(len(part) == 1 for part in nodes)
        kind = "pair" if pair else "stream"
        yield Site(kind, tuple(sorted(tensors)), sizes.pop(), tuple(writers), tuple(readers))


def _users(wiring: Wiring, tensor: str) -> list[tuple[int, int]]:
    return wiring.consumers.get(tensor, [])


def _collect(wiring: Wiring, tensor: str, writers: list[End], readers: list[End]) -> bool:
    """Add the ends at a tensor; False where something else than a site's ends touches it."""
    if tensor in wiring.ends or tensor not in wiring.producer:
        return False
    producer = wiring.producer[tensor]
    if not wiring.commutes(producer):
        found = wiring.writes(producer)
        if not found:
            return False
        writers += found
    for index, slot in _users(wiring, tensor):
        if wiring.commutes(index):
            continue
        found = wiring.reads(index, slot)
        if not found:
            return False
        readers += found
    return True


def _tied(wiring: Wiring) -> list[list[str]]:
    """Return the sets of tensors that only one factor for each channel can scale."""
    root: dict[str, str] = {}

    def top(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    for index, node in enumerate(wiring.nodes):
        names = [node.output[0]]
        if wiring.commutes(index):
            names += node.input if node.op_type == "Add" else node.input[:1]
        for name in names:
            root[top(name)] = top(names[0])
    groups: dict[str, list[str]] = defaultdict(list)
    for name in root:
        groups[top(name)].append(name)
    return list(groups.values())


def _norms(wiring: Wiring) -> Iterator[Site]:
    for index, node in enumerate(wiring.nodes):
        last = wiring.attribute(index, "axis", -1) == -1
        if node.op_type != "LayerNormalization" or not last or not wiring.constants(index, 1, 2):
            continue
        readers = list(_norm_readers(wiring, node.output[0]))
        if not readers or None in readers or node.output[0] in wiring.ends:
            continue
        writers = [End(index, slot, 0) for slot in range(1, len(node.input)) if node.input[slot]]
        size = wiring.shapes[node.input[1]][0]
        known = tuple(reader for reader in readers if reader is not None)
        yield Site("norm", (node.output[0],), size, tuple(writers), known)


def _norm_readers(wiring: Wiring, tensor: str) -> Iterator[End | None]:
    """Yield the weights that read a tensor's last axis, None for a reader that is no product."""
    for index, slot in _users(wiring, tensor):
        node = wiring.nodes[index]
        if node.op_type == "Transpose" and _last_to_second(node):
            for after, place in _users(wiring, node.output[0]):
                convolved = wiring.nodes[after].op_type == "Conv"
                yield from _or_none(wiring.reads(after, place) if convolved else [])
        elif node.op_type in ("MatMul", "Gemm"):
            yield from _or_none(wiring.reads(index, slot))
        else:
            yield None


def _or_none(ends: list[End]) -> list[End | None]:
    return [*ends] if ends else [None]


def _last_to_second(node: onnx.NodeProto) -> bool:
    return any(a.name == "perm" and list(a.ints) == [0, 3, 1, 2] for a in node.attribute)


def shared(model: onnx.ModelProto) -> Counter[str]:
    """Return how often each tensor is read."""
    return Counter(name for node in model.graph.node for name in node.input)
