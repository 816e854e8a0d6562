"""What is expected of a plan before it is judged and built: the order in which layers leave INT8.

A layer's error is what it adds alone at the network's output, ``10**(-alone_db / 10)``.  What INT8
saves there is its time in the float engine less that in the INT8 engine, where both tell it; where
not, its share by MACs of what the whole engines differ by; a node without MACs, such as an Add, is
taken to save the least that another does.  A plan takes the INT8 engine's time and what its float
layers would have saved.

Limits: neither errors nor times add up exactly.  Errors interact, and a float layer between INT8
ones costs conversions.  So a prior orders what is tried; what is tried is judged and measured.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quantlab.findings import Sensitivity
from quantlab.search.base import Latency, Unit


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Expected errors and times.

    Attributes:
        errors: relative, by node, in graph order.
        saved: ms that INT8 saves at each node; negative where the float layer is faster.
        int8_ms: of the engine that is all INT8.
    """

    errors: Mapping[str, float]
    saved: Mapping[str, float]
    int8_ms: float

    def ms(self, floats: Collection[str]) -> float:
        """Return the expected latency of a plan, in ms."""
        return self.int8_ms + sum(self.saved[node] for node in self.saved if node in floats)

    def by_cost(self) -> tuple[str, ...]:
        """Return the nodes, the most error for the time saved first, those that save none before.

        Ties are broken by the error, then by graph order.
        """
        return tuple(sorted(self.errors, key=lambda node: (-self._cost(node), -self.errors[node])))

    def by_error(self) -> tuple[str, ...]:
        """Return the nodes, the largest error first; ties in graph order."""
        return tuple(sorted(self.errors, key=lambda node: -self.errors[node]))

    def idle(self) -> tuple[str, ...]:
        """Return the nodes at which INT8 saves no time, in graph order."""
        return tuple(node for node, saved in self.saved.items() if saved <= 0)

    def _cost(self, node: str) -> float:
        saved = self.saved[node]
        return self.errors[node] / saved if saved > 0 else float("inf")


def prior(
    units: Sequence[Unit], sensitivities: Sequence[Sensitivity], real: Latency, int8: Latency
) -> Prior:
    """Return what is expected of the layers that have a sensitivity, or of all if none has.

    Args:
        units: in graph order.
        sensitivities: of any kind; rows of kind "layer" are used.
        real: of the engine in the type that float layers of a plan have.
        int8: of the engine that is all INT8.
    """
    errors = {
        row.name: 0.0 if row.alone_db is None else float(10 ** (-row.alone_db / 10))
        for row in sensitivities
        if row.kind == "layer"
    }
    known = [unit for unit in units if unit.node in errors] or list(units)
    total = sum(unit.macs for unit in known)
    a_mac = max(real.ms - int8.ms, 0.0) / total if total else 0.0
    saved: dict[str, float] = {}
    for unit in known:
        if unit.node in real.layers and unit.node in int8.layers:
            saved[unit.node] = real.layers[unit.node] - int8.layers[unit.node]
        elif unit.macs:
            saved[unit.node] = a_mac * unit.macs
    least = min((ms for ms in saved.values() if ms > 0), default=0.0)
    return Prior(
        {unit.node: errors.get(unit.node, 0.0) for unit in known},
        {unit.node: saved.get(unit.node, least) for unit in known},
        int8.ms,
    )
