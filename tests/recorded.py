"""A run folder as ``quantlab calibrate`` leaves it, of any number of tensors, without a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab import __version__, cache, manifest
from quantlab.calibrators import CALIBRATORS
from quantlab.collect import batch_amax, saved
from quantlab.decide import algorithm, decide, follow, knobs
from quantlab.files import sha256, write
from quantlab.histogram import Histogram, from_array
from quantlab.registry import make
from quantlab.runfolder import opened

BATCHES, BATCH, VALUES = 8, 4, 128
"""Batches, samples in each, elements a sample."""


@dataclass(frozen=True)
class Recipe:
    """What the run was asked for."""

    tensors: int = 6
    method: str = "mse"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ties: Sequence[tuple[str, ...]] = (("t0", "t1"), ("t1", "t3"))
    followers: Mapping[str, str] = field(
        default_factory=lambda: {"t2_pooled": "t2", "a_flat": "t5"}
    )
    maxima: bool = True


def activations(index: int) -> NDArray[np.float32]:
    """Return (samples, values) of tensor number ``index``: one of four distributions."""
    rng = np.random.default_rng(index)
    normal = rng.normal(size=(BATCHES * BATCH, VALUES))
    made = (normal, np.maximum(normal, 0), rng.laplace(size=normal.shape), np.exp(3 * normal - 4))
    return (made[index % 4] * (1 + index)).astype(np.float32)


def recorded(folder: Path, recipe: Recipe | None = None) -> Path:
    """Write ``folder`` by the functions that a run uses, and return it."""
    asked = recipe or Recipe()
    names = [f"t{i}" for i in range(asked.tensors)]
    values = {name: activations(i) for i, name in enumerate(names)}
    histograms = {name: from_array(name, x) for name, x in values.items()}
    with opened(folder) as run:
        collected = [folder / "histograms.npz", folder / "collection.json"]

        def collect() -> Sequence[Path]:
            saved.save(collected[0], histograms)
            write(collected[1], f'{{"samples": {BATCHES * BATCH}, "batch": {BATCH}}}\n')
            if asked.maxima:
                collected.append(folder / "batch_amax.npz")
                amax = [np.abs(x).reshape(BATCHES, -1).max(axis=1) for x in values.values()]
                first = np.arange(BATCHES, dtype=np.int64) * BATCH
                batch_amax.save(collected[2], names, first, np.stack(amax, 1).astype(np.float64))
            return collected

        run.step("collect", {"tensors": names}, collect)
        made_from = {
            "histograms": sha256(collected[0]),
            "collection": sha256(collected[1]),
            "tied tensors": [list(asked.ties), dict(asked.followers)],
            "method": asked.method,
            "nonfinite": "fail",
        }
        kept = batch_amax.attach(histograms, collected[2]) if asked.maxima else histograms
        run.step("decide", made_from, lambda: decided(folder, asked, kept))
    return folder


def decided(folder: Path, asked: Recipe, histograms: Mapping[str, Histogram]) -> list[Path]:
    """Write calibration.cache and its manifest."""
    calibrator = make("method", CALIBRATORS, asked.method, asked.parameters)
    found = decide(histograms, calibrator, method=asked.method, ties=asked.ties)
    found = follow(found, asked.followers)
    target = folder / "calibration.cache"
    header = cache.header_for("8.6.1", algorithm(asked.method))
    cache.write(target, cache.from_thresholds(found, header))
    manifest.Manifest(
        quantlab=__version__,
        created="2026-01-01T00:00:00+00:00",
        versions={},
        graph_hash="graph",
        weights_hash="weights",
        data_hash="data",
        samples=BATCHES * BATCH,
        preprocessing={"kind": "npz"},
        method=asked.method,
        knobs=knobs(asked.method, asked.parameters, nonfinite="fail", batch=BATCH),
        tensors=tuple(found),
        tied=dict(asked.followers),
        cache_sha256=sha256(target),
    ).save(manifest.beside(target))
    return [target, manifest.beside(target)]
