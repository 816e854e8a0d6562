"""The second phase: every INT8 model on the same samples, by the same ONNX Runtime.

Q/DQ are computed as they are written, in floating point ("session.disable_quant_qdq"): integer
kernels differ between CPUs, and without VNNI they saturate.  Drops are paired with FP32 on the same
samples; intervals are 95 % bootstrap intervals over samples.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.integers import counted
from benchmarks.accuracy.material import Material
from benchmarks.accuracy.request import INT8
from benchmarks.accuracy.stored import Found, digest, once
from benchmarks.accuracy.structure import structure
from benchmarks.accuracy.tasks import Array, Rows
from quantlab.engines.ort_session import CPU, loaded, options
from quantlab.errors import QuantlabError
from quantlab.intervals import bootstrap
from quantlab.measured import Interval

BATCH = 100
SEED = 0
DIGITS = 16


def judged(material: Material, setting: str) -> Found:
    """Return drops and contents of a cell's INT8 model, once for each model: settings may agree."""
    path = material.cell(setting) / INT8
    key = {"model": digest(path), "evaluation": digest(material.folder / "evaluation.npz")}
    place = judgement(material, setting)
    place.parent.mkdir(exist_ok=True)
    return once(place, key, lambda: _judge(material, path, place.with_suffix(".npz")))


def judgement(material: Material, setting: str) -> Path:
    """Return the file that holds what ``judged`` found of a cell's INT8 model."""
    return place_of(material, material.cell(setting) / INT8)


def place_of(material: Material, model: Path, what: str = "") -> Path:
    """Return the file for what is found of a model, by its digest: settings may agree."""
    return material.folder / "judged" / f"{digest(model)[:DIGITS]}{what}.json"


def _judge(material: Material, path: Path, kept: Path) -> Found:
    samples, reference = material.evaluation(), float_outputs(material)
    try:
        found = outputs(path, samples.inputs)
    except QuantlabError as error:
        return {"error": str(error)}
    expected = material.task.scores(reference, samples.labels, reference)
    got = material.task.scores(found, samples.labels, reference)
    np.savez(kept, allow_pickle=False, **got)
    return {
        "metrics": _compared(expected, got),
        "contents": counted(path),
        "structure": structure(path),
    }


def _compared(expected: Mapping[str, Rows], got: Mapping[str, Rows]) -> dict[str, Any]:
    return {
        metric: {
            "fp32": float(rows.mean()),
            "int8": float(got[metric].mean()),
            "drop": numbers(paired(rows, got[metric])),
        }
        for metric, rows in expected.items()
    }


def paired(expected: Rows, got: Rows) -> Interval:
    """Return the mean of what is lost, with its interval over samples."""
    lost = expected - got

    def statistic(drawn: NDArray[np.int64]) -> Rows:
        mean: Rows = lost[drawn].mean(axis=-1)
        return mean[None]

    (interval,) = bootstrap(len(lost), statistic, seed=SEED)
    return interval


def numbers(interval: Interval) -> list[float]:
    """Return value, low and high."""
    return [interval.value, interval.low, interval.high]


def float_outputs(material: Material) -> Array:
    """Return FP32's outputs on the evaluation samples, computed once."""
    path = material.folder / "fp32.npy"
    key = {
        "model": digest(material.model),
        "evaluation": digest(material.folder / "evaluation.npz"),
    }

    def work() -> Found:
        np.save(path, outputs(material.model, material.evaluation().inputs))
        return {"file": path.name}

    once(material.folder / "fp32.json", key, work)
    return np.asarray(np.load(path, allow_pickle=False))


def scores(material: Material, setting: str) -> Rows:
    """Return each sample's score in the network's metric, which ``judged`` kept."""
    with np.load(judgement(material, setting).with_suffix(".npz"), allow_pickle=False) as file:
        return np.asarray(file[material.task.metric], np.float64)


def outputs(path: Path, samples: Array) -> Array:
    """Return the first output of a model for all samples.

    Raises:
        EngineError: ONNX Runtime refuses the model or fails to run it.
    """
    chosen = options()
    chosen.add_session_config_entry("session.disable_quant_qdq", "1")
    opened = loaded(path, chosen, CPU)
    name = opened.get_inputs()[0].name
    parts = [
        opened.run(None, {name: samples[start : start + BATCH]})[0]
        for start in range(0, len(samples), BATCH)
    ]
    return np.concatenate(parts)
