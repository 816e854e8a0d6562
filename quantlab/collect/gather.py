"""Parts put together: what was collected so far, as memory, as a checkpoint, and as the result."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.collect.saved import columns, histograms_of
from quantlab.collect.work import Part, Unit
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.errors import CalibrationError
from quantlab.files import staged
from quantlab.histogram import Histogram, merge
from quantlab.npz import DAMAGED, arrays

Passes = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """How a collection went.

    Attributes:
        samples: how many were counted.
        batch: samples a batch.
        seconds: wall time, that of runs which were stopped included.
        inference_seconds: part of it spent in the model; of several workers the sum.
        peak_rss_bytes: largest resident memory of a worker.
        data_hash: hash over the samples, independent of their order.
        skipped: samples that the dataset left out, with the reason.
        passes: how often the samples were run.
        expected_peak_bytes: what was planned for ``peak_rss_bytes``; 0 where no budget was set.
        executor: who did it.
    """

    samples: int
    batch: int
    seconds: float
    inference_seconds: float
    peak_rss_bytes: int
    data_hash: str
    skipped: tuple[str, ...] = ()
    passes: int = 1
    expected_peak_bytes: int = 0
    executor: str = "local"


class Gathered:
    """What was collected so far; mutable, the coordinator's own.

    Attributes:
        passes: tensors of each pass.
        done: fingerprint of the samples of every unit that is done.
        samples: counted in the first pass.
        seconds, inference_seconds: so far.
        peak_bytes: largest so far.
        skipped: samples that the dataset left out, with the reason.
    """

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.done: dict[Unit, int] = {}
        self.samples = 0
        self.seconds = 0.0
        self.inference_seconds = 0.0
        self.peak_bytes = 0
        self.skipped: tuple[str, ...] = ()
        self._histograms: dict[str, Histogram] = {}
        self._batches: list[dict[int, NDArray[np.float64]]] = [{} for _ in passes]

    def add(self, part: Part) -> None:
        """Merge a part; one whose unit is done already changes nothing.

        Raises:
            CalibrationError: its samples are not those that another pass had for its shard.
        """
        if part.unit in self.done:
            return
        shard = part.unit.shard
        others = (self.done.get(Unit(i, shard)) for i in range(len(self.passes)))
        if any(other not in (None, part.fingerprint) for other in others):
            raise CalibrationError(
                f"the samples of shard {shard} were not the same in another pass over them; a "
                "dataset must give the same samples each time"
            )
        self.done[part.unit] = part.fingerprint
        for name, histogram in part.histograms.items():
            known = self._histograms.get(name)
            self._histograms[name] = merge([known, histogram]) if known else histogram
        rows = self._batches[part.unit.round]
        rows.update(zip(part.first.tolist(), part.amax, strict=True))
        self.samples += part.samples if part.unit.round == 0 else 0
        self.inference_seconds += part.inference_seconds
        self.peak_bytes = max(self.peak_bytes, part.peak_bytes)
        self.skipped = tuple(dict.fromkeys((*self.skipped, *part.skipped)))

    def histograms(self) -> dict[str, Histogram]:
        """Return the histograms so far, in the order of the passes."""
        names = (name for names in self.passes for name in names)
        return {name: self._histograms[name] for name in names if name in self._histograms}

    def batch_amax(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return each batch's first sample and, (batches, tensors), its largest magnitudes."""
        first = sorted(self._batches[0])
        columns = [
            np.array([rows[i] for i in first]).reshape(len(first), len(names))
            for rows, names in zip(self._batches, self.passes, strict=True)
        ]
        return np.array(first, np.int64), np.concatenate(columns, axis=1)

    def data_hash(self) -> str:
        """Return the hash of the samples."""
        found = Fingerprint()
        for unit, total in self.done.items():
            if unit.round == 0:
                found.merge(total)
        return found.hexdigest()

    def save(self, path: Path, key: Mapping[str, Any]) -> None:
        """Write a checkpoint, whole or not at all.

        Args:
            path: file to write.
            key: what the collection depends on; ``load`` gives it back.
        """
        facts = {
            "key": dict(key),
            "passes": self.passes,
            "done": [(u.round, u.shard, hex(total)) for u, total in self.done.items()],
            "samples": self.samples,
            "seconds": self.seconds,
            "inference_seconds": self.inference_seconds,
            "peak_bytes": self.peak_bytes,
            "skipped": self.skipped,
        }
        made = columns(tuple(self._histograms.values()))
        made["facts"] = np.array(json.dumps(facts))
        for number, rows in enumerate(self._batches):
            made[f"first{number}"] = np.array(list(rows), np.int64)
            made[f"amax{number}"] = np.array(list(rows.values()), np.float64).reshape(
                len(rows), len(self.passes[number])
            )
        with staged(path) as temporary:
            np.savez(temporary, **made)  # type: ignore[arg-type]  # as in saved.save


def load(path: Path) -> tuple[Gathered, dict[str, Any]]:
    """Return what ``Gathered.save`` wrote, and its key.

    Raises:
        CalibrationError: the file is truncated, or of another kind.
    """
    try:
        file = arrays(path)
        facts = json.loads(str(file["facts"]))
        passes: Passes = tuple(tuple(names) for names in facts["passes"])
        found = Gathered(passes)
        found._histograms = histograms_of(file)
        for number, rows in enumerate(found._batches):
            first = file[f"first{number}"].tolist()
            rows.update(zip(first, file[f"amax{number}"], strict=True))
        found.done = {Unit(r, shard): int(total, 16) for r, shard, total in facts["done"]}
        found.samples = int(facts["samples"])
        found.seconds = float(facts["seconds"])
        found.inference_seconds = float(facts["inference_seconds"])
        found.peak_bytes = int(facts["peak_bytes"])
        found.skipped = tuple(facts["skipped"])
        key = dict(facts["key"])
    except DAMAGED as error:
        raise CalibrationError(
            f"cannot read the checkpoint {path}: {error}; delete it to collect anew"
        ) from error
    return found, key


def check_finite(histograms: Sequence[Histogram], batch: int) -> None:
    """Raise CalibrationError naming tensor, batch and sample of the first NaN or infinity.

    Args:
        histograms: in graph order, so that the first is where it began.
        batch: the batch size that was run, to name the batch.
    """
    for histogram in histograms:
        for kind, first, number in (
            ("NaN", histogram.first_nan, histogram.nans),
            ("infinite", histogram.first_inf, histogram.infs),
        ):
            if first is not None:
                raise CalibrationError(
                    f"tensor {histogram.tensor!r}: {number} elements are {kind}, first in sample "
                    f"{first} (batch {first // batch}); repair the sample or the model, or set "
                    "'calibration.nonfinite: ignore' to calibrate on the finite elements"
                )
