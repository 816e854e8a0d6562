"""Memory of a tensor on both sides: page-locked on the host, where the GPU copies by itself.

Sizes are in bytes.  A buffer only grows, so once it has seen the largest tensor its addresses stay,
and a CUDA graph that was captured with them stays true.
"""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.cuda.device import Device

LEAST = 256
"""Bytes of the smallest buffer: CUDA allocates nothing of no size, and aligns to this."""


class Buffer:
    """Host and device memory for one tensor.

    Call its methods inside ``Device.current``, and let no copy be under way when it grows or goes.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._host: NDArray[np.uint8] | None = None
        self._memory: Any = None
        self.size = 0

    @property
    def address(self) -> int:
        """Where it lies on the device; 0 before anything was reserved."""
        return 0 if self._memory is None else int(self._memory)

    def reserve(self, size: int) -> bool:
        """Make room for ``size`` bytes; return whether the addresses changed.

        Raises:
            pycuda.driver.MemoryError: it does not fit, on either side; ``Device.current`` turns it
                into OutOfDeviceMemory.
        """
        if self._host is not None and size <= self.size:
            return False
        self.free()
        size = max(size, LEAST)
        self._memory = self._device.cuda.mem_alloc(size)
        self._host = self._device.cuda.pagelocked_empty(size, np.uint8)
        self.size = size
        return True

    def host(self, shape: tuple[int, ...], dtype: str) -> NDArray[np.generic]:
        """Return the host memory as an array; it holds until the buffer grows or goes."""
        return self._bytes(bytes_of(shape, dtype)).view(dtype).reshape(shape)

    def upload(self, size: int, stream: Any) -> None:
        """Queue a copy of the first ``size`` bytes to the device."""
        if size:
            self._device.cuda.memcpy_htod_async(self.address, self._bytes(size), stream)

    def download(self, size: int, stream: Any, source: int | None = None) -> None:
        """Queue a copy of ``size`` bytes to the host, from ``source`` if they lie elsewhere."""
        if size:
            start = self.address if source is None else source
            self._device.cuda.memcpy_dtoh_async(self._bytes(size), start, stream)

    def free(self) -> None:
        """Give the memory back, on both sides."""
        if self._memory is not None:
            self._memory.free()
        if self._host is not None:
            allocation: Any = self._host.base
            self._host = None
            allocation.free()
        self._memory, self.size = None, 0

    def _bytes(self, size: int) -> NDArray[np.uint8]:
        assert self._host is not None  # noqa: S101  reserve() comes first
        return self._host[:size]


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """Return how many bytes an array takes.

    >>> bytes_of((2, 3), "float16")
    12
    """
    return prod(shape) * np.dtype(dtype).itemsize
