"""Arrays to the GPU without waiting for it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.cuda.device import Device

AHEAD = 2
"""Copies that can be under way: one that the GPU reads, one that the host writes."""


class Staging:
    """Device memory that one array after the other is copied into, in the order of the stream.

    The way there goes through page-locked memory, from which the GPU copies by itself.  Where more
    than AHEAD copies would be under way, ``put`` waits, so the host cannot run far ahead.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._size = 0
        self._memory: Any = None
        self._slots: list[tuple[NDArray[np.uint8], Any]] = []
        self._turn = 0

    def put(self, array: NDArray[np.generic]) -> int:
        """Queue a copy of ``array`` and return its address on the device.

        The address holds until the next ``put``.  Call it inside ``Device.current``.
        """
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if data.size > self._size or not self._slots:
            self._grow(max(data.size, 16))
        self._turn = (self._turn + 1) % AHEAD
        slot, done = self._slots[self._turn]
        done.synchronize()
        slot[: data.size] = data
        stream = self._device.stream
        if data.size:
            self._device.cuda.memcpy_htod_async(self._memory, slot[: data.size], stream)
        done.record(stream)
        return int(self._memory)

    def _grow(self, size: int) -> None:
        cuda = self._device.cuda
        self._device.stream.synchronize()  # what is there may still be read
        self._slots, self._memory, self._size = [], None, 0
        self._memory = cuda.mem_alloc(size)
        quiet = cuda.event_flags.DISABLE_TIMING
        self._slots = [
            (cuda.pagelocked_empty(size, np.uint8), cuda.Event(quiet)) for _ in range(AHEAD)
        ]
        self._size = size
