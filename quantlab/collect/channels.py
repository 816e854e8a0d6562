"""Largest magnitude of each channel of tensors: what scaling channels rests on.

One ONNX Runtime session whose outputs are ReduceMax(Abs(x)) over all axes but the channels', so
that only (channels,) values come out of it; one batch is in memory at a time.  The result does not
depend on how the samples are cut into batches.

Units: the tensors' own.  A sum beside the maximum tells NaN, which a maximum may pass over.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.engines.base import Array
from quantlab.engines.ort_session import run, session
from quantlab.errors import CalibrationError
from quantlab.graph.editor import Editor
from quantlab.graph.model import reload
from quantlab.graph.passes import copy
from quantlab.graph.reduce import reduce
from quantlab.graph.tap import beside


def channel_amax(
    path: Path, axes: Mapping[str, int], batches: Iterable[Mapping[str, Array]]
) -> dict[str, NDArray[np.float64]]:
    """Return the largest magnitude that each channel took, (channels,), by tensor.

    Args:
        path: of the prepared model.
        axes: the channels' axis of each tensor that is wanted; the tensors have known ranks.
        batches: inputs of the model by name.

    Raises:
        CalibrationError: a tensor was NaN or infinite, or there is no batch.
        ModelError: the file cannot be read, or a tensor is not in the graph.
        EngineError: ONNX Runtime refuses the model or fails.
    """
    found: dict[str, NDArray[np.float64]] = {}
    model, outputs = _reduced(reload(path), axes)
    with beside(model, path) as file:
        opened = session(file, tapped=True)
        wanted = [name for pair in outputs.values() for name in pair]
        for number, batch in enumerate(batches):
            made = run(opened, wanted, batch)
            for tensor, (largest, total) in outputs.items():
                _check(tensor, made[largest], made[total], number)
                seen = made[largest].astype(np.float64)
                found[tensor] = np.maximum(found.get(tensor, seen), seen)
    if axes and not found:
        raise CalibrationError("no batch of calibration samples came; give at least one sample")
    return found


def _reduced(
    model: ir.Model, axes: Mapping[str, int]
) -> tuple[ir.Model, dict[str, tuple[str, str]]]:
    """Return the model that outputs the reductions alone, and their names, by tensor.

    Tensors are reduced from the last to the first, as ``tap.watch`` says why.
    """
    editor = Editor(copy(model))
    editor.model.graph.outputs.clear()
    outputs: dict[str, tuple[str, str]] = {}
    for name, axis in reversed(list(axes.items())):
        value = editor.tensor(name)
        others = [place for place in range(len(value.shape or ())) if place != axis]
        magnitude = editor.insert("Abs", (value,), f"{name}_magnitude")
        magnitude.type = value.type
        largest, total = (
            reduce(editor, op, magnitude, others, keepdims=False)
            for op in ("ReduceMax", "ReduceL1")
        )
        editor.model.graph.outputs.extend([largest, total])
        outputs[name] = (str(largest.name), str(total.name))
    return editor.model, outputs


def _check(tensor: str, largest: Array, total: Array, batch: int) -> None:
    if not np.isfinite(largest).all() or np.isnan(total).any():
        raise CalibrationError(
            f"tensor {tensor!r} was NaN or infinite in batch {batch} of the calibration samples; "
            "its channels cannot be repaired: remove the samples or leave 'repair' out"
        )
