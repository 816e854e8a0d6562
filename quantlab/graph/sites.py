"""Where Q/DQ goes: the records that placement returns, and how tensors share scales."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

import onnx_ir as ir

from quantlab.graph.view import CLAMPS, SAME_SCALE, constant, is_average, only_reader
from quantlab.records import Decision


@dataclass(frozen=True, slots=True)
class Edge:
    """An input of a node: the node's name and the input's index."""

    node: str
    index: int


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor that is quantized.

    Attributes:
        tensor: its name.
        edges: the inputs that read it through Q/DQ; other readers see the float tensor.
    """

    tensor: str
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """Constant weights that are stored as INT8.

    Attributes:
        edge: the input that reads them.
        initializer: their name; several edges may read it.
        axis: channel axis with a scale an index, None for one scale.
    """

    edge: Edge
    initializer: str
    axis: int | None


@dataclass(frozen=True, slots=True)
class Bias:
    """A constant bias that is stored as INT32, on the grid of the products that it is added to.

    Attributes:
        edge: the input that reads it, of a node whose inputs 0 and 1 are quantized.
        initializer: its name, "" where there is none: a correction may give it one.
    """

    edge: Edge
    initializer: str


@dataclass(frozen=True, slots=True)
class Placement:
    """What of a model is quantized.

    Attributes:
        activations: quantized tensors in graph order.
        weights: quantized weights in graph order.
        ties: groups of quantized tensors that must share one threshold, in graph order.
        derived: for TensorRT's caches: tensor -> tensor whose scale it carries, because it is
            pooled, moved or clamped into it.
        implicit: float tensors that are neither quantized nor derived, in graph order.  TensorRT
            8.6 to 10 also wants a cache entry for these; explicit Q/DQ does not.
        decisions: one for each operator that could be quantized, in graph order.
        biases: those that are quantized too; TensorRT takes none.
    """

    activations: tuple[Activation, ...]
    weights: tuple[Weight, ...]
    ties: tuple[tuple[str, ...], ...]
    derived: Mapping[str, str]
    implicit: tuple[str, ...]
    decisions: tuple[Decision, ...]
    biases: tuple[Bias, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that must be calibrated, in graph order."""
        return tuple(activation.tensor for activation in self.activations)


class Groups:
    """Disjoint sets of tensors (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def find(self, value: ir.Value) -> ir.Value:
        """Return the tensor that stands for the set of ``value``."""
        while value in self._parent:
            value = self._parent[value]
        return value

    def join(self, left: ir.Value, right: ir.Value) -> None:
        """Put two tensors and all that belongs to them into one set."""
        root, other = self.find(left), self.find(right)
        if root is not other:
            self._parent[other] = root

    def sets(self, values: Iterable[ir.Value]) -> list[list[ir.Value]]:
        """Return ``values`` by set, each set and the list in the order given."""
        found: dict[ir.Value, list[ir.Value]] = {}
        for value in values:
            found.setdefault(self.find(value), []).append(value)
        return list(found.values())


def build(
    model: ir.Model,
    edges: Mapping[ir.Value, list[Edge]],
    weights: Iterable[Weight],
    decisions: Iterable[Decision],
    ties: Groups,
) -> Placement:
    """Put a policy's answers into graph order and work out what follows from them."""
    ordered = list(tensors(model))
    points = [value for value in ordered if value in edges]
    derived, alone = _derived(model, ordered, set(points))
    return Placement(
        activations=tuple(Activation(str(v.name), tuple(edges[v])) for v in points),
        weights=tuple(weights),
        ties=tuple(
            tuple(str(v.name) for v in group) for group in ties.sets(points) if len(group) > 1
        ),
        derived=derived,
        implicit=alone,
        decisions=tuple(decisions),
    )


def tensors(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the float32 tensors of the main graph, inputs first, then in node order."""
    values = list(model.graph.inputs)
    for node in model.graph:
        values.extend(value for value in node.outputs if value.name)
    for value in values:
        if value.dtype in (ir.DataType.FLOAT, None) and not constant(value):
            yield value


def same_scale(model: ir.Model, integers: Callable[[ir.Node], bool]) -> Groups:
    """Return the sets of tensors that one grid serves: moved, max-pooled, concatenated.

    Args:
        model: placed.
        integers: whether a node moves integers; others share no grid unless they always do.
    """
    groups = Groups()
    for node in model.graph:
        if node.op_type in SAME_SCALE | {"Concat"} or integers(node):
            sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
            for value in sources:
                if value is not None and not constant(value):
                    for made in node.outputs:
                        groups.join(value, made)
    return groups


@dataclass(frozen=True, slots=True)
class BodyRule:
    """Why a node inside another one is not quantized."""

    name: str = "subgraph"
    reason: str = "bodies of If, Loop and Scan are not quantized"
    source: str = "TensorRT's ONNX parser: Q/DQ belong to the main graph"


SUBGRAPH = BodyRule()


def inside_subgraphs(model: ir.Model, ops: Set[str]) -> Iterator[Decision]:
    """Yield a decision for each node of type ``ops`` in the body of an If, Loop or Scan."""
    for node in model.graph:
        for inner in ir.traversal.RecursiveGraphIterator(ir.GraphView((), (), nodes=(node,))):
            if inner is not node and inner.op_type in ops:
                yield Decision(
                    node=str(inner.name),
                    op=inner.op_type,
                    quantized=False,
                    rule=SUBGRAPH.name,
                    reason=f"inside {node.op_type} {node.name!r}; {SUBGRAPH.reason}",
                )


def _derived(
    model: ir.Model, ordered: list[ir.Value], points: set[ir.Value]
) -> tuple[dict[str, str], tuple[str, ...]]:
    groups = Groups()
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        if source is None or constant(source):
            continue
        clamped = node.op_type in CLAMPS and only_reader(source) is node
        if clamped or node.op_type in SAME_SCALE or is_average(node):
            groups.join(source, node.outputs[0])
    derived: dict[str, str] = {}
    alone: set[ir.Value] = set()
    for group in groups.sets(ordered):
        # A clamp's output stands for its input: calibrating it ignores what is cut off anyway.
        leader = next((v for v in group if v in points), None)
        if leader is None:
            leader = next((v for v in group if not _cut(v)), group[-1])
            alone.add(leader)
        derived |= {str(v.name): str(leader.name) for v in group if v is not leader}
    return derived, tuple(str(v.name) for v in ordered if v in alone)


def _cut(value: ir.Value) -> bool:
    reader = only_reader(value)
    return reader is not None and reader.op_type in CLAMPS
