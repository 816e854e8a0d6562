"""Trying plans by simulation, from all INT8: which layers have to leave it, and which may return.

1. Along each order of the prior, the shortest beginning whose layers in floating point meet the
   target is found by bisection, which takes the error to fall as layers leave; it is tried, so
   where that is wrong a longer beginning than needed comes out, not a wrong one.
2. In the best of these, layers return to INT8 one by one, the least costly first, where the target
   stays met: what stood before a costly layer in the order need not be needed after it.
3. A few random exchanges of a float layer for one that costs less time.
4. Beginnings of other lengths, for the front of accuracy against latency.

Everything that was tried is kept, and nothing is tried twice.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from quantlab.graph.pins import Float
from quantlab.search.base import Bench, Candidate, Floats, Judged
from quantlab.search.prior import Prior
from quantlab.search.target import Target

RETURNS = 24
"""Layers that are tried back in INT8, of one plan."""

EXCHANGES = 16
"""Exchanges that are tried."""

Nodes = frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Explorer:
    """Tries plans; what it tried is in ``tried``, which grows.

    Attributes:
        bench: judges.
        target: what is to be met.
        prior: by which layers are chosen.
        wide: layers that are FP32 where they leave INT8, whatever is around.
        rest: nodes that are FP32 where such a layer is.
        always: whether they are in every plan.
        tried: by the set of float layers, in the order in which they were tried.
    """

    bench: Bench
    target: Target
    prior: Prior
    wide: Set[str] = frozenset()
    rest: Floats = ()
    always: bool = False
    tried: dict[Nodes, Judged] = field(default_factory=dict)

    def candidate(self, nodes: Nodes) -> Candidate:
        """Return the plan that has these layers in floating point, in graph order."""
        leaving = [node for node in self.prior.errors if node in nodes]
        wide = self.always or any(node in self.wide for node in leaving)
        kinds: dict[str, Float] = dict.fromkeys(leaving, self.bench.around)
        kinds |= {node: "fp32" for node in leaving if node in self.wide}
        return Candidate("int8", (*(self.rest if wide else ()), *kinds.items()))

    def judge(self, nodes: Nodes) -> Judged:
        """Judge a plan once."""
        if nodes not in self.tried:
            self.tried[nodes] = self.bench.judge(self.candidate(nodes))
        return self.tried[nodes]

    def meets(self, nodes: Nodes) -> bool:
        """Whether a plan meets the target and has anything in INT8."""
        found = self.judge(nodes)
        return found.finite and found.macs_int8 > 0 and self.target.meets(found.accuracy)


def explore(explorer: Explorer, *, seed: int) -> None:
    """Try plans; see the module's text.

    Args:
        explorer: keeps what was tried.
        seed: of the exchanges.
    """
    prior = explorer.prior
    by_cost = prior.by_cost()
    if not explorer.meets(frozenset()):
        starts = [_shortest(explorer, order) for order in (by_cost, prior.by_error())]
        enough = [nodes for nodes in starts if explorer.meets(nodes)]
        if enough:
            best = _returned(explorer, min(enough, key=prior.ms))
            _exchanged(explorer, best, seed)
    for nodes in _beginnings(prior, by_cost):
        explorer.judge(nodes)


def _shortest(explorer: Explorer, order: Sequence[str]) -> Nodes:
    """Return the shortest beginning that meets the target, or all but the last layer."""
    fails, enough = 0, len(order)
    while enough - fails > 1:
        middle = (fails + enough) // 2
        if explorer.meets(frozenset(order[:middle])):
            enough = middle
        else:
            fails = middle
    return frozenset(order[: min(enough, len(order) - 1)])


def _returned(explorer: Explorer, nodes: Nodes) -> Nodes:
    """Return a plan with as many layers back in INT8 as the target allows."""
    prior = explorer.prior
    costly_last = [n for n in reversed(prior.by_cost()) if n in nodes and prior.saved[n] > 0]
    for node in costly_last[:RETURNS]:
        if explorer.meets(nodes - {node}):
            nodes = nodes - {node}
    return nodes


def _exchanged(explorer: Explorer, nodes: Nodes, seed: int) -> None:
    """Try random exchanges of a float layer for one that costs less time."""
    saved, rng = explorer.prior.saved, np.random.default_rng(seed)
    for _ in range(EXCHANGES):
        pairs = [
            (out, back)
            for back in saved
            if back in nodes
            for out in saved
            if out not in nodes and saved[out] < saved[back]
        ]
        if not pairs:
            return
        out, back = pairs[rng.integers(len(pairs))]
        other = nodes - {back} | {out}
        if explorer.meets(other):
            nodes = other


def _beginnings(prior: Prior, order: Sequence[str]) -> list[Nodes]:
    """Return what INT8 gains nothing from, and beginnings of 1, 2, 4, 8 ... layers."""
    lengths = [0, *(2**i for i in range(len(order).bit_length()))]
    found = [frozenset(prior.idle())]
    found += [frozenset(order[:length]) for length in lengths]
    return [nodes for nodes in dict.fromkeys(found) if len(nodes) < len(order)]
