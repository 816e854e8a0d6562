"""What is to be collected, how it is cut, and what comes back: frozen and picklable.

The samples are cut into shards, the tensors into passes (several, where a memory budget asks for
it).  A unit of work is one shard in one pass.  Units can be done by anyone, in any order, and
their parts merge exactly: that is what checkpoints, executors and passes have in common.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantlab.datasets.base import Dataset
from quantlab.histogram import Histogram
from quantlab.records import TensorSpec


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One shard of the samples in one pass over them; both count from 0."""

    round: int
    shard: int


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes of the inputs and of the counted tensors, linear in the number of samples.

    They are a guess from what one and two samples gave: a tensor whose shape depends on the data
    has another.

    Attributes:
        samples: that ``base`` was measured with.
        base: by tensor.
        step: by tensor, what one sample more adds to each axis.
    """

    samples: int
    base: Mapping[str, tuple[int, ...]]
    step: Mapping[str, tuple[int, ...]]

    def of(self, tensor: str, samples: int) -> tuple[int, ...]:
        """Return the shape of a tensor for that many samples."""
        more = samples - self.samples
        return tuple(
            max(axis + more * step, 0)
            for axis, step in zip(self.base[tensor], self.step[tensor], strict=True)
        )

    @property
    def grow(self) -> bool:
        """Whether anything grows with the samples; not where the batch axis is fixed."""
        return any(any(step) for step in self.step.values())

    def axis(self, tensor: str) -> int | None:
        """Return the axis that counts samples, None where there is none or no telling."""
        if not self.grow:
            return 0 if self.base[tensor][:1] == (self.samples,) else None
        growing = [axis for axis, step in enumerate(self.step[tensor]) if step]
        return growing[0] if len(growing) == 1 else None

    def shared(self, tensor: str) -> bool:
        """Whether a tensor is the same size, and so one and the same, for any number of samples."""
        return self.grow and not any(self.step[tensor])


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker needs to know.

    Attributes:
        model: the prepared model.
        passes: the tensors to count in each pass.
        inputs: of the model.
        dataset: gives the samples.
        samples: places of the dataset that are used, the first ones.
        batch: samples a batch.
        shard: places a shard, a multiple of ``batch``.
        shapes: of the tensors.
        slice: samples that a lane runs at once, at most.
        lanes: slices that run at once.
        threads: of one inference.
        expected_peak_bytes: of a worker's memory; 0 where no budget asks for it.
    """

    model: Path
    passes: tuple[tuple[str, ...], ...]
    inputs: tuple[TensorSpec, ...]
    dataset: Dataset
    samples: int
    batch: int
    shard: int
    shapes: Shapes
    slice: int
    lanes: int
    threads: int = 1
    expected_peak_bytes: int = 0

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor that is counted."""
        return tuple(tensor for tensors in self.passes for tensor in tensors)

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units, pass by pass."""
        shards = range(-(-self.samples // self.shard))
        return tuple(Unit(i, shard) for i in range(len(self.passes)) for shard in shards)

    def places(self, shard: int) -> tuple[int, int]:
        """Return the first place of a shard and the one behind its last."""
        return shard * self.shard, min((shard + 1) * self.shard, self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one unit gave.

    Attributes:
        unit: which.
        samples: how many were counted.
        histograms: by tensor, those of the unit's pass.
        first: (batches,) int64, the first sample of each batch.
        amax: (batches, tensors) float64, largest finite magnitude; -inf where there is none.
        fingerprint: sum of the samples' digests (datasets.fingerprint).
        skipped: samples that the dataset has left out so far, with the reason.
        inference_seconds: time in the model, averaged over the lanes that ran at once.
        peak_bytes: largest resident memory of the worker so far.
    """

    unit: Unit
    samples: int
    histograms: dict[str, Histogram]
    first: NDArray[np.int64]
    amax: NDArray[np.float64]
    fingerprint: int
    skipped: tuple[str, ...]
    inference_seconds: float
    peak_bytes: int
