"""Benches in closed form: errors and times that add up, with what a real one would do to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log10

from hypothesis import strategies as st

from quantlab.findings import Sensitivity
from quantlab.graph.pins import Float
from quantlab.metrics.sqnr import Sqnr
from quantlab.metrics.top1 import Top1
from quantlab.records import Precision
from quantlab.search.base import Candidate, Judged, Latency, Unit
from quantlab.search.target import Target


@dataclass(frozen=True)
class Layer:
    """What a layer loses in INT8, and its ms in each type."""

    loss: float
    fp32: float
    fp16: float
    int8: float


@dataclass(frozen=True)
class World:
    """A network in a row.

    ``reformat`` is the ms that each change between INT8 and float costs; ``told`` whether the
    engine tells what its layers take; ``broken`` are the layers with values beyond FP16.
    """

    layers: tuple[Layer, ...]
    reformat: float = 0.0
    told: bool = True
    around: Float = "fp16"
    broken: frozenset[int] = frozenset()
    samples: int = 100
    batch: int = 1
    step: float | None = None
    uniform: Sequence[Precision] = ("fp32", "fp16", "int8")
    timed: list[Candidate] = field(default_factory=list)
    judged: list[Candidate] = field(default_factory=list)

    @property
    def units(self) -> Sequence[Unit]:
        return [Unit(f"n{i}", 10 + i) for i in range(len(self.layers))]

    def beyond_fp16(self) -> Sequence[str]:
        return [f"n{i}" for i in sorted(self.broken)]

    def types(self, candidate: Candidate) -> list[Precision]:
        floats = dict(candidate.floats)
        return [floats.get(f"n{i}", candidate.precision) for i in range(len(self.layers))]

    def judge(self, candidate: Candidate) -> Judged:
        self.judged.append(candidate)
        types = self.types(candidate)
        loss = sum(x.loss for x, t in zip(self.layers, types, strict=True) if t == "int8")
        finite = not any(types[i] == "fp16" for i in self.broken)
        macs = [unit.macs for unit in self.units]
        taken = sum(m for m, t in zip(macs, types, strict=True) if t == "int8")
        return Judged(loss, finite, taken / sum(macs), candidate.floats)

    def ms(self, candidate: Candidate) -> float:
        types = self.types(candidate)
        times = [getattr(x, t) for x, t in zip(self.layers, types, strict=True)]
        integer = [t == "int8" for t in types]
        changes = sum(a != b for a, b in pairwise(integer))
        return float(sum(times)) + changes * self.reformat

    def time(self, candidate: Candidate) -> Latency:
        self.timed.append(candidate)
        ms, types = self.ms(candidate), self.types(candidate)
        told = {f"n{i}": getattr(self.layers[i], t) for i, t in enumerate(types)}
        return Latency(ms, 0.99 * ms, 1.01 * ms, "measured", told if self.told else {})

    @property
    def sensitivities(self) -> list[Sensitivity]:
        """What an analysis would find: dB of each layer's own error."""
        return [
            Sensitivity(
                f"n{i}", "layer", f"n{i}", "Conv", None, -10 * log10(x.loss) if x.loss else None, 1
            )
            for i, x in enumerate(self.layers)
        ]


def drop(limit: float) -> Target:
    """A limit of the loss that ``World`` gives."""
    return Target("top1_drop", limit, Top1(), drop=True)


def decibels(limit: float) -> Target:
    """A limit that more is better for."""
    return Target("sqnr", limit, Sqnr(), drop=False)


times = st.floats(0.01, 1.0)
layers = st.builds(
    lambda loss, base, half, eighth: Layer(loss, base, base * half, base * eighth),
    st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 6)),
    times,
    st.floats(0.3, 1.0),
    st.floats(0.15, 1.3),
)


def worlds(most: int) -> st.SearchStrategy[World]:
    """Networks of up to ``most`` layers, some with costly reformats, some that tell no times."""
    return st.builds(
        World,
        st.lists(layers, min_size=2, max_size=most).map(tuple),
        st.sampled_from([0.0, 0.02, 0.2]),
        st.booleans(),
        st.sampled_from(["fp16", "fp32"]),
    )


def costs(world: World, assignment: Mapping[int, bool]) -> tuple[float, float]:
    """Return the loss and the ms of a plan, by layer whether it is in floating point."""
    floats = tuple((f"n{i}", world.around) for i, real in assignment.items() if real)
    candidate = Candidate("int8", floats)
    return world.judge(candidate).accuracy, world.ms(candidate)
