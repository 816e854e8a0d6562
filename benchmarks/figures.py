"""A measured figure: its value, its spread, its limit, and how it was measured."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the result.

    Attributes:
        name: what was measured.
        value: the figure.
        unit: of value, low and high; "x" for a ratio.
        low: least of the repeats, or the lower end of a 95 % interval; ``how`` says which.
        high: its counterpart.
        how: how it was measured, in a sentence.
        at_least: limit from below, if there is one.
        at_most: limit from above, if there is one.
    """

    name: str
    value: float
    unit: str
    low: float
    high: float
    how: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value keeps its limits; None if it has none."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a calibration cost in a process of its own; medians over ``runs`` processes.

    Attributes:
        name: whose calibration.
        tensors: how many it gave thresholds for.
        seconds: wall time.
        cpu_seconds: of all threads together.
        peak_bytes: largest resident memory of the process.
        grown_bytes: the part of it that came after the libraries were loaded.
        runs: number of processes.
    """

    name: str
    tensors: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    grown_bytes: int
    runs: int


@dataclass(frozen=True, slots=True)
class Share:
    """Time that one inference spends in layers of a kind.

    Attributes:
        kind: of layer.
        fp32_ms: in the FP32 engine; 0 if it has none of them.
        int8_ms: in the INT8 engine.
    """

    kind: str
    fp32_ms: float
    int8_ms: float


def ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of medians, and the least and largest ratio of a pair of repeats."""
    pairs = [a / b for a, b in zip(over, under, strict=True)]
    return statistics.median(over) / statistics.median(under), min(pairs), max(pairs)
