"""The values that flow between the steps: frozen, printable, and saved as JSON.

Units are in the names: seconds, ms, bytes; amax, threshold and scale in the tensor's own units.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quantlab.findings import Analysis, Repaired, Searched
from quantlab.measured import Accuracy, Performance, TargetResult
from quantlab.qparams import scale_of

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A model's input or output.

    Attributes:
        name: tensor name in the graph.
        dtype: NumPy's name of the element type: "float32", "int64", ...
        shape: one entry an axis; an int if fixed, the symbol's name or None if dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        """Return e.g. ``image float32[N, 1, 28, 28]``."""
        return f"{self.name} {self.dtype}[{', '.join(str(d or '?') for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class TensorThreshold:
    """What calibration decided for one activation tensor.

    Attributes:
        tensor: name in the prepared graph.
        amax: largest finite magnitude that was seen.
        threshold: magnitude that the largest INT8 step stands for; 0 for an all-zero tensor.
        method: calibrator that chose it, or "tied" if it follows another tensor.
        minimum: smallest finite element seen; >= 0 allows unsigned quantization.
    """

    tensor: str
    amax: float
    threshold: float
    method: str
    minimum: float

    @property
    def scale(self) -> float:
        """Symmetric INT8 scale, ``threshold / 127`` in float32; 1.0 for an all-zero tensor."""
        return scale_of(self.threshold)


Thresholds = Mapping[str, TensorThreshold]
"""By tensor name, in graph order."""


@dataclass(frozen=True, slots=True)
class Build:
    """An engine on disk.

    Attributes:
        precision: what was asked for.
        backend: name in ENGINES.
        device: what it runs on, e.g. "CPU".
        path: main file, relative to the run folder.
        files: every file of the engine, relative to the run folder, with its SHA-256.
        size_bytes: of all files together.
        build_seconds: wall time of the build.
        notes: what a reader must know of how the model was made.
        facts: what the engine was built with and for, by name, as the report shows it.
    """

    precision: Precision
    backend: str
    device: str
    path: str
    files: Mapping[str, str]
    size_bytes: int
    build_seconds: float
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layer:
    """One executed layer of an engine, as the backend tells it.

    Attributes:
        name: the backend's name of it, usually the ONNX node's.
        type: operation, in the backend's words.
        precision: element type that the kernel computed in: "f32", "f16", "bf16", "i8", "u8" ...
        weighted: a convolution or matrix product: the work that INT8 is about.
        ms: time of one inference, None if the backend gives no timing.
        kernel: the kernel's name, "" if not told.
    """

    name: str
    type: str
    precision: str
    weighted: bool
    ms: float | None = None
    kernel: str = ""

    @property
    def integer(self) -> bool:
        """Whether it computed in 8-bit integers."""
        return self.precision in ("i8", "u8", "int8", "uint8")


@dataclass(frozen=True, slots=True)
class Fusion:
    """An executed layer that does the work of several nodes of the model.

    Attributes:
        layer: its name among the executed layers; "" where none is left.
        kind: "vertical": a chain, such as convolution, bias and activation; "horizontal": nodes of
            one operation on one input; "removed": no kernel, as for a Concat written in place.
        nodes: names of the model's nodes.
    """

    layer: str
    kind: Literal["vertical", "horizontal", "removed"]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an opened engine says of itself.

    Attributes:
        backend: name and version.
        device: full device name.
        threads: threads that one inference uses.
        precision: what was asked for.
        ran: precision that the weighted layers really computed in: "f32", "f16", "i8", "f32 + i8".
        layers: executed layers in order.
        notes: what a reader must know: a fallback, a missing instruction set.
        fusions: what the backend tells of nodes that it joined.
    """

    backend: str
    device: str
    threads: int
    precision: Precision
    ran: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()
    fusions: tuple[Fusion, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One row of the per-tensor table: the threshold and what the histogram says of it.

    Attributes:
        clipped_fraction: share of finite elements beyond the threshold.
        sqnr_db: predicted signal-to-quantization-noise ratio under the threshold; None if the
            tensor is all zero or without error.
        nan, inf, zero: counts of elements.
    """

    name: str
    amax: float
    threshold: float
    scale: float
    method: str
    clipped_fraction: float
    sqnr_db: float | None
    nan: int
    inf: int
    zero: int
    elements: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a node was or was not quantized.

    Attributes:
        node: node name; op: its type.
        quantized: whether its inputs got Q/DQ.
        rule: name of the placement rule that decided.
        reason: the rule's reason in a sentence.
    """

    node: str
    op: str
    quantized: bool
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """How the thresholds came about.

    Attributes:
        seconds: wall time of collection and decision together.
        inference_seconds: part of it spent in the model itself.
        peak_rss_bytes: the process's peak resident memory during collection.
        model_hash, data_hash: SHA-256 of the prepared model and of the calibration samples.
    """

    method: str
    samples: int
    batch: int
    seconds: float
    inference_seconds: float
    peak_rss_bytes: int
    model_hash: str
    data_hash: str
    tensors: int


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Everything known of one engine.

    ``accuracy`` is keyed by metric; ``integer_layers`` of ``weighted_layers`` computed in 8-bit
    integers and ``float_layers`` names those that did not.  ``facts`` say what it was built with.
    """

    precision: Precision
    backend: str
    device: str
    size_bytes: int
    build_seconds: float
    ran: str
    threads: int
    accuracy: Mapping[str, Accuracy]
    performance: tuple[Performance, ...]
    weighted_layers: int
    integer_layers: int
    float_layers: tuple[str, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    fusions: tuple[Fusion, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The model that was measured."""

    path: str
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    nodes: int
    parameters: int


@dataclass(frozen=True, slots=True)
class HistogramReport:
    """A histogram thinned for drawing: ``counts`` on equal bins over [0, upper]."""

    tensor: str
    upper: float
    counts: tuple[int, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class ClassReport:
    """One class of a labelled evaluation: samples and top-1 (%) by precision."""

    index: int
    name: str
    samples: int
    top1: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """report.json, whole; every table, chart and page is made from this alone.

    ``placement`` is of the nodes that its rules decide about, ``followers`` of all others.
    ``analysis``, ``repair`` and ``search`` are there where they were asked for.
    """

    schema_version: int
    quantlab: str
    created: str
    model: ModelReport
    engines: tuple[EngineReport, ...]
    tensors: tuple[TensorReport, ...]
    calibration: CalibrationSummary
    histograms: tuple[HistogramReport, ...]
    placement: tuple[Decision, ...]
    classes: tuple[ClassReport, ...]
    targets: tuple[TargetResult, ...]
    warnings: tuple[str, ...]
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    config: Mapping[str, Any]
    command: str
    timings: Mapping[str, float] = field(default_factory=dict)
    analysis: Analysis | None = None
    repair: Repaired | None = None
    search: Searched | None = None
    followers: tuple[Decision, ...] = ()
