"""Running ONNX models in tests, and thresholds from what was seen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from quantlab.graph.model import save
from quantlab.graph.tap import tap
from quantlab.records import TensorThreshold

Array = NDArray[np.generic]


def run(path: Path, given: Mapping[str, Array]) -> dict[str, Array]:
    """Return every output of a model by name, computed node by node."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(given)), strict=True))


def kernels(path: Path, folder: Path) -> Counter[str]:
    """Return the operators of the graph that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def thresholds(
    model: ir.Model, tensors: Sequence[str], given: Mapping[str, Array], folder: Path
) -> dict[str, TensorThreshold]:
    """Return min-max thresholds of ``tensors`` for one batch."""
    path = folder / "tapped.onnx"
    save(tap(model, tensors), path)
    seen = {**run(path, given), **given}
    found = {}
    for name in tensors:
        amax, low = float(np.abs(seen[name]).max()), float(seen[name].min())
        found[name] = TensorThreshold(name, amax, amax, "minmax", low)
    return found


def relative_error(expected: Array, got: Array) -> float:
    """Return the root mean square of the difference, relative to that of ``expected``."""
    difference = got.astype(np.float64) - expected.astype(np.float64)
    return float(np.sqrt(np.mean(difference**2) / np.mean(expected.astype(np.float64) ** 2)))
