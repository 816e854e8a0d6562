"""The GPU as a fixture, and what counts arrays on it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from quantlab.cuda.counter import Counter, View
from quantlab.cuda.device import Device
from quantlab.errors import EngineUnavailable
from quantlab.histogram import Histogram

Count = Callable[..., Histogram]


@pytest.fixture(scope="session")
def device() -> Device:
    try:
        return Device()
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def memory(device: Device) -> int:
    """Address of 64 MiB on the device, kept for the session."""
    with device.current():
        allocated = device.cuda.mem_alloc(64 << 20)
    memories.append(allocated)
    return int(allocated)


memories: list[object] = []


@pytest.fixture(scope="session")
def count(device: Device, memory: int) -> Count:
    def counted(
        batches: Sequence[tuple[NDArray[np.generic], NDArray[np.int64]]], *, offset: int = 0
    ) -> Histogram:
        """Upload each batch to the same place, ``offset`` bytes in, and count it there."""
        counter = Counter(device, ["t"])
        for array, samples in batches:
            data = np.ascontiguousarray(array)
            if data.size:
                with device.current():
                    device.stream.synchronize()  # the last batch is read
                    device.cuda.memcpy_htod(memory + offset, data)
            counter.add([View(memory + offset, array.shape, array.dtype.name)], samples)
        return counter.take()["t"]

    return counted
