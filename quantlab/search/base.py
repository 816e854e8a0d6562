"""What the search works with: layers that it decides on, plans, and a bench that judges them.

The search is pure logic over a ``Bench``: one judges a plan's accuracy, which is cheap, and one
tells its speed, which may cost a build.  So it serves every backend and is tested without any.
Units: latencies in ms of one inference; MACs are multiply-accumulates of one sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quantlab.graph.pins import Float
from quantlab.records import Precision

Floats = tuple[tuple[str, Float], ...]
"""Nodes that are kept from a lower precision, with their type, in graph order."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A node that the plan of all INT8 quantizes.

    Attributes:
        node: its name.
        macs: of its weights, 0 where it has none.
    """

    node: str
    macs: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan: an engine's precision, and what of it stays in floating point.

    Attributes:
        precision: "int8" for a mixed plan.
        floats: of an INT8 engine, nodes that are not; of an FP16 engine, nodes in FP32.
    """

    precision: Precision
    floats: Floats = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """How accurate a plan is.

    Attributes:
        accuracy: what the target judges, on the samples held back.
        finite: whether all outputs were; where not, no target is met.
        macs_int8: share of the multiplications in INT8, 0 to 1.
        floats: of the candidate, and the nodes that cannot be INT8 without them.
    """

    accuracy: float
    finite: bool
    macs_int8: float
    floats: Floats


@dataclass(frozen=True, slots=True)
class Latency:
    """How fast a plan is.

    Attributes:
        ms: of one inference, with its 95 % interval from ``low`` to ``high``.
        speed: "measured" cost a build.
        layers: ms by node, where known.
    """

    ms: float
    low: float
    high: float
    speed: Literal["measured", "modelled"]
    layers: Mapping[str, float] = field(default_factory=dict)


class Bench(Protocol):
    """Judges and times plans; must answer the same to the same question."""

    @property
    def units(self) -> Sequence[Unit]:
        """What INT8 quantizes, in graph order."""
        ...

    @property
    def uniform(self) -> Sequence[Precision]:
        """Precisions to build whole engines of: "fp32" first, "int8" last."""
        ...

    @property
    def around(self) -> Float:
        """Type of what INT8 leaves in floating point."""
        ...

    @property
    def samples(self) -> int:
        """How many samples plans are judged on."""
        ...

    @property
    def batch(self) -> int:
        """Samples an inference, of the latencies."""
        ...

    @property
    def step(self) -> float | None:
        """What one sample is of the target's metric, where samples are right or wrong."""
        ...

    def beyond_fp16(self) -> Sequence[str]:
        """Return the nodes that read, make or hold what FP16 cannot, in graph order."""
        ...

    def judge(self, candidate: Candidate) -> Judged:
        """Judge a plan on the samples held back, by simulation."""
        ...

    def time(self, candidate: Candidate) -> Latency:
        """Build a plan's engine and measure it, or model its speed."""
        ...
