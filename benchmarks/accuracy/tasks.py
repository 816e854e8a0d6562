"""What a network is given, and how its outputs are judged.

Units:  top-1 and retrieval in percent, PSNR in dB, cosine to FP32's output from -1 to 1.
Limits: calibration samples are of the training split, chosen by the seed; for the made-up sentences
        and the noise they have seeds of their own.  Evaluation samples are the first of the test
        split, with the noise and the sentences that the networks were scored on.
"""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import data, sentences
from benchmarks.peers.environments import ROOT
from benchmarks.peers.material import MEAN, STD
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.psnr import Psnr
from quantlab.metrics.top1 import Top1

FASHION = ROOT / "examples" / "fashion_mnist"
POOL = 5000
"""Training pictures, the first of the file, that calibration samples are drawn from."""

TEST_SEED = 1
CALIBRATION_SEED = 100
"""Of noise and sentences; training has seed 0."""

Array = NDArray[np.generic]
Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs (n, ...) and labels (n, ...): classes, clean pictures, or documents."""

    inputs: Array
    labels: Array

    def chosen(self, count: int, seed: int) -> "Samples":
        """Return ``count`` of them in an order of the seed's."""
        order = np.random.default_rng(seed).permutation(len(self.inputs))[:count]
        return Samples(self.inputs[order], self.labels[order])

    def after(self, count: int) -> "Samples":
        """Return all but the first ``count``."""
        return Samples(self.inputs[count:], self.labels[count:])


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of data and judgement.

    Attributes:
        metric: what is judged, a name in METRICS and in settings.TARGETS.
        calibration: from the data file, number and seed.
        evaluation: from the data file and the number.
        scores: by metric, a row a sample, from outputs, labels and FP32's outputs.
    """

    metric: str
    calibration: Callable[[Path, int, int], Samples]
    evaluation: Callable[[Path, int], Samples]
    scores: Callable[[Array, Array, Array], Mapping[str, Rows]]


def _idx(stem: str) -> Samples:
    """Return pictures and labels of a pair of Fashion-MNIST's files."""
    raw = gzip.decompress((FASHION / f"{stem}-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    raw = gzip.decompress((FASHION / f"{stem}-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8).astype(np.int64)
    return Samples(((pixels / 255 - MEAN) / STD).astype(np.float32), labels)


def _first(samples: Samples, count: int) -> Samples:
    return Samples(samples.inputs[:count], samples.labels[:count])


def _pictures(path: Path, split: str, limit: int) -> Samples:
    pixels, labels = data.read(path, split, limit)
    return Samples(data.normalized(pixels), labels)


def _noisy(path: Path, split: str, limit: int, seed: int) -> Samples:
    return Samples(*data.noisy(data.read(path, split, limit)[0], seed))


def _sentences(count: int, seed: int) -> Samples:
    """Return the first sentences of all documents, then the second ones; labels are documents."""
    documents = -(-count // 2)
    both = sentences.pairs(documents, seed).transpose(1, 0, 2)
    numbers = np.tile(np.arange(documents), 2)
    return Samples(both.reshape(-1, sentences.LENGTH), numbers)


def _top1(outputs: Array, labels: Array, _: Array) -> dict[str, Rows]:
    return {"top1": Top1().scores(outputs, labels)[:, 0]}


def _psnr(outputs: Array, labels: Array, _: Array) -> dict[str, Rows]:
    return {"psnr": Psnr().scores(outputs, labels)[:, 0]}


def _embedded(outputs: Array, labels: Array, reference: Array) -> dict[str, Rows]:
    """Return cosines, and 100 where the nearest second sentence is of the same document."""
    cosines = Cosine().scores(outputs, reference)[:, 0]
    first, second = np.split(outputs / np.linalg.norm(outputs, axis=1, keepdims=True), 2)
    nearest = labels[: len(first)][(first @ second.T).argmax(axis=1)]
    return {"cosine": cosines, "retrieved": 100.0 * (nearest == labels[: len(first)])}


TASKS: dict[str, Task] = {
    "fashion": Task(
        "top1",
        lambda _, count, seed: _idx("calib").chosen(count, seed),
        lambda _, count: _first(_idx("t10k"), count),
        _top1,
    ),
    "classify": Task(
        "top1",
        lambda path, count, seed: _pictures(path, "train", POOL).chosen(count, seed),
        lambda path, count: _pictures(path, "test", count),
        _top1,
    ),
    "denoise": Task(
        "psnr",
        lambda path, count, seed: _noisy(path, "train", POOL, CALIBRATION_SEED + seed).chosen(
            count, seed
        ),
        lambda path, count: _noisy(path, "test", count, TEST_SEED),
        _psnr,
    ),
    "embed": Task(
        "cosine",
        lambda _, count, seed: _sentences(count, CALIBRATION_SEED + seed).chosen(count, seed),
        lambda _, count: _sentences(count, TEST_SEED),
        _embedded,
    ),
}
"""By name in NETWORKS."""
