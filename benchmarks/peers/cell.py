"""What is measured: a tool on a model with a number of images, and what it cost."""

from dataclasses import dataclass
from typing import Literal

End = Literal["finished", "memory", "time", "failed"]
"""How a process ended: by itself, killed at a limit, or with an error."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to calibrate, or the inference that it is compared with.

    Attributes:
        name: in tables.
        environment: its virtual environment.
    """

    name: str
    environment: str


TOOLS: dict[str, Tool] = {
    "plain": Tool("plain inference", "quantlab"),
    "plain-taps": Tool("plain inference, the same taps", "quantlab"),
    "quantlab-mse": Tool("quantlab mse (default)", "quantlab"),
    "quantlab-entropy": Tool("quantlab entropy", "quantlab"),
    "ort-minmax": Tool("ONNX Runtime MinMax", "onnxruntime"),
    "ort-percentile": Tool("ONNX Runtime Percentile", "onnxruntime"),
    "ort-entropy": Tool("ONNX Runtime Entropy, 2048 bins", "onnxruntime"),
    "modelopt-max": Tool("modelopt max", "modelopt"),
    "modelopt-entropy": Tool("modelopt entropy", "modelopt"),
}
"""What calibrates, by its name on the command line."""

SEARCHES: dict[str, Tool] = {
    "search-quantlab": Tool("quantlab entropy, 4096 bins", "quantlab"),
    "search-ort": Tool("ONNX Runtime entropy, 2048 bins", "onnxruntime"),
    "search-modelopt": Tool("modelopt.torch entropy, 2048 bins", "modelopt"),
}
"""KL search alone, on histograms of the same activations."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to measure.

    Attributes:
        tool: name in TOOLS or SEARCHES.
        model: name of the network.
        images: to calibrate with, or that the histograms were made of.
    """

    tool: str
    model: str
    images: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one process cost.

    Attributes:
        cell: what it did.
        end: how it ended; the figures of a killed process are those at its end.
        tensors: that it gave thresholds for, 0 if it gave none.
        seconds: wall time from the call to the thresholds, imports excluded; 0 if not finished.
        process_seconds: wall time of the process.
        cpu_seconds: user and system time of the process and its children.
        peak_bytes: largest resident memory.
        start_bytes: resident memory when the libraries were loaded.
        images_read: how many the tool had read when the process ended.
        milliseconds: of each tensor's search, for SEARCHES.
        versions: of the packages that took part.
        error: the last line that a failed process printed.
    """

    cell: Cell
    end: End
    tensors: int
    seconds: float
    process_seconds: float
    cpu_seconds: float
    peak_bytes: int
    start_bytes: int
    images_read: int
    milliseconds: dict[str, float]
    versions: dict[str, str]
    error: str
