"""What measuring gives: values with their uncertainty, by metric, batch size and target.

Units are in the names: ms, samples a second; accuracies in the metric's own unit.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval; low and high equal the value where nothing varies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One metric of one engine.

    Attributes:
        metric: name in METRICS.
        value: the metric; low and high bound its 95 % bootstrap interval over the samples.  All
            three are None where the engine would be compared with itself.
        delta: engine minus FP32, paired on the same samples; None for FP32 itself and for
            metrics that compare with FP32's outputs.
        unit: "%", "dB" or "".
        higher_is_better: direction.
        samples: how many.
        p_value: of the exact McNemar test against FP32, where a sample is either right or wrong;
            None elsewhere and for FP32 itself.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    delta: Interval | None
    unit: str
    higher_is_better: bool
    samples: int
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of times in ms."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class DevicePerformance:
    """What a device's own clock says of one engine at one batch size.

    Attributes:
        compute_ms: the inference alone; h2d_ms and d2h_ms: copies to the device and back.
        enqueue_ms: host time that handing over an inference took.
        throughput_without_transfers: samples a second where nothing is copied.
        cuda_graph: whether inferences were replayed from a CUDA graph.
        clocks_mhz, power_watts: lowest and highest meanwhile; None where the driver tells none.
        warnings: what makes these numbers doubtful, in sentences.
    """

    compute_ms: Percentiles
    h2d_ms: Percentiles
    d2h_ms: Percentiles
    enqueue_ms: Percentiles
    throughput_without_transfers: float
    cuda_graph: bool
    clocks_mhz: tuple[int, int] | None = None
    power_watts: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Performance:
    """Latency and throughput of one engine at one batch size.

    Attributes:
        batch: samples an inference.
        p50_ms: median latency of an inference; p90_ms and p99_ms: percentiles.
        throughput: samples a second, with its 95 % interval over the rounds.
        speedup: throughput over FP32's, paired by round; None for FP32 and without it.
        inferences: how many were timed.
        rounds: in how many interleaved rounds.
        device: by the device's own clock, where there is one; latencies then are its sums.
    """

    batch: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    throughput_low: float
    throughput_high: float
    speedup: Interval | None
    inferences: int
    rounds: int
    device: DevicePerformance | None = None


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A target of the config: its limit, what came, whether it was met."""

    name: str
    limit: float
    value: float
    met: bool
