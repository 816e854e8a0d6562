"""What diagnosis, repair and search found: frozen, printable, and saved as JSON.

SQNR is the power of FP32's values over the power of the difference, in dB, over all judged samples
and outputs; None where there is no difference.  Accuracies are in the metric's own unit.
"""

from dataclasses import dataclass
from typing import Literal

CHOOSE = "choose"
"""Stands beside the names in REPAIRS for the choice of thresholds: ``calibration.method: auto``."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What quantizing one tensor, one weight or one layer costs.

    Attributes:
        name: of the tensor, the weights' initializer, or the layer's node.
        kind: "layer" is a node's weights and the tensors that it reads, together.
        layer: node that reads it; the first one where several do.
        op: that node's type.
        own_db: SQNR where it is itself: of the tensor or weights, or at the layer's output, with
            nothing else quantized.
        alone_db: SQNR at the network's output with nothing else quantized.
        without_db: SQNR at the network's output with everything but it quantized.
        drop: what the metric loses with nothing else quantized; None where none was judged.
    """

    name: str
    kind: Literal["activation", "weight", "layer"]
    layer: str
    op: str
    own_db: float | None
    alone_db: float | None
    without_db: float | None
    drop: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence or two about one row: what hurts, what its values look like, what may help.

    Attributes:
        name: of the row.
        text: for people.
        repair: name in REPAIRS that is likely to help, or CHOOSE; "" where none is.
    """

    name: str
    text: str
    repair: str = ""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The cost of quantizing each part, the most costly first.

    Attributes:
        samples: how many were run.
        seconds: wall time.
        all_db: SQNR at the network's output with everything quantized.
        metric: that drops are of; "" where none was judged.
        unit: of the metric.
        rows: the lowest ``alone_db`` first, within layers, then activations, then weights.
        findings: in words, the worst first.
        notes: what a reader must know, such as why no metric was judged.
    """

    samples: int
    seconds: float
    all_db: float | None
    metric: str
    unit: str
    rows: tuple[Sensitivity, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that was tried and judged on the samples held back.

    Attributes:
        repair: name in REPAIRS, or CHOOSE.
        what: tensor, method or parameters that were tried.
        before_db: SQNR at the network's output without it; after_db: with it.
        kept: whether it stayed.
        seconds: what it took.
        note: what it changed, or why it left the model as it was.
    """

    repair: str
    what: str
    before_db: float | None
    after_db: float | None
    kept: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Repaired:
    """How the INT8 model was chosen: in the order of the trials.

    Attributes:
        held_back: samples that it was judged on.
        before_db: SQNR at the network's output of the plain INT8 model; after_db: of the chosen.
        trials: all of them.
    """

    held_back: int
    before_db: float | None
    after_db: float | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One assignment of types to layers, with what it costs and gains.

    Attributes:
        label: "int8", "fp16", "fp32", or e.g. "int8 but 3".
        precision: of the engine.
        floats: nodes that are kept from INT8, with their type, in graph order.
        macs_int8: share of the multiplications in INT8, 0 to 1.
        accuracy: what the target judges, on the samples held back: a drop, or a value.
        latency_ms: of one inference, with its 95 % interval from ``low`` to ``high``.
        speed: "measured" on a built engine, or "modelled" from the times of layers.
        meets: whether the accuracy meets the target.
        on_front: whether no other plan is both faster and at least as accurate.
    """

    label: str
    precision: Literal["fp32", "fp16", "int8"]
    floats: tuple[tuple[str, str], ...]
    macs_int8: float
    accuracy: float
    latency_ms: float
    low: float
    high: float
    speed: Literal["measured", "modelled"]
    meets: bool
    on_front: bool


@dataclass(frozen=True, slots=True)
class Searched:
    """The search's plans and its recommendation.

    Attributes:
        target: name, e.g. "top1_drop"; limit: of the config.
        held_back: samples that it was judged on.
        batch: samples an inference, of the latencies.
        builds: engines that were built.
        seconds: wall time.
        plans: the fastest first.
        chosen: label of the recommended plan.
        met: whether it meets the target.
        reason: why it is recommended, in a sentence.
    """

    target: str
    limit: float
    held_back: int
    batch: int
    builds: int
    seconds: float
    plans: tuple[Plan, ...]
    chosen: str
    met: bool
    reason: str
