"""The executor ``cuda``: this process, the model and the counting on one GPU."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantlab.collect.lane import Lane, Ranges
from quantlab.collect.work import Part, Unit, Work
from quantlab.collect.worker import Worker
from quantlab.cuda.device import OutOfDeviceMemory
from quantlab.engines.base import Array
from quantlab.errors import ConfigError
from quantlab.histogram import Histogram
from quantlab.progress import Advance


@dataclass(frozen=True, slots=True)
class Cuda:
    """One NVIDIA GPU of this machine.

    Attributes:
        device_id: which GPU, as CUDA numbers them.
        halve_batch: whether a batch that the GPU's memory does not hold may be run in halves,
            where the model's batch axis is not fixed.
    """

    name: ClassVar[str] = "cuda"
    device: ClassVar[str] = "cuda"
    distributed: ClassVar[bool] = False

    device_id: int = 0
    halve_batch: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a negative number of a GPU."""
        if self.device_id < 0:
            raise ConfigError(f"device_id: expected 0 or more, got {self.device_id}", "device_id")

    def available(self) -> str:
        """Return the GPU's name.

        Raises:
            EngineUnavailable: ONNX Runtime's CUDA provider, PyCUDA, NVRTC, the driver or the GPU is
                missing; the message says what to install.
        """
        from quantlab.collect.cuda import require_provider
        from quantlab.cuda.device import Device

        require_provider()
        device = Device(self.device_id)
        device.load_kernels()
        return device.name

    def cores(self) -> int:
        """Return 1: the thread that feeds the GPU."""
        return 1

    def parts(self, work: Work, units: Sequence[Unit], advance: Advance) -> Iterator[Part]:
        """Do the units in order, a whole batch at a time."""
        whole = replace(work, slice=work.batch, lanes=1)
        with Worker(whole, self._lanes, advance) as worker:
            for unit in units:
                yield worker.part(unit)

    def _lanes(self, work: Work, tensors: tuple[str, ...]) -> Sequence[Lane]:
        from quantlab.collect.cuda import CudaLane
        from quantlab.graph.tap import tapped

        with tapped(work.model, tensors, work.tensors) as model:
            lane = CudaLane(model, tensors, work.inputs, device_id=self.device_id)
        return [Halving(lane) if self.halve_batch and work.shapes.grow else lane]


class Halving:
    """A lane that cuts a slice in half, and its halves again, until the GPU's memory holds it."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    @property
    def seconds(self) -> float:
        """Time spent in the model since ``take``."""
        return self._lane.seconds

    def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
        """Run one slice, in parts if need be; see ``Lane.run``.

        Raises:
            OutOfDeviceMemory: a single sample does not fit.
        """
        try:
            return self._lane.run(arrays, samples)
        except OutOfDeviceMemory:
            if len(samples) == 1:
                raise
        half = len(samples) // 2
        halves = [
            self.run({name: array[cut] for name, array in arrays.items()}, samples[cut])
            for cut in (slice(None, half), slice(half, None))
        ]
        return lambda: _together(*(ranges() for ranges in halves))

    def take(self) -> dict[str, Histogram]:
        """Return what was counted since the last call, by tensor, and start anew."""
        return self._lane.take()


def _together(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (tensors, 2) the extremes of both."""
    low, high = np.minimum(one[:, 0], other[:, 0]), np.maximum(one[:, 1], other[:, 1])
    return np.stack([low, high], axis=1)
