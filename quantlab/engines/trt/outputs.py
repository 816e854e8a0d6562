"""Memory for outputs whose shape depends on the data: TensorRT asks for it while it enqueues.

TensorRT 8.6 asks through ``reallocate_output``, TensorRT-RTX through ``reallocate_output_async``,
10 and 11 through either.  What was given stays, and is used again, until a larger output comes.
CUDA's allocations are aligned to 256 bytes, which is all that TensorRT asks for.
"""

from typing import Protocol

from quantlab.cuda.device import Device
from quantlab.engines.device import Found
from quantlab.engines.trt.api_build import Dims
from quantlab.engines.trt.api_run import IOutputAllocator, Module
from quantlab.engines.trt.callbacks import Kept

LEAST = 256
"""Bytes of the smallest allocation: an empty output needs an address too."""


class Allocation(Protocol):
    """Memory that PyCUDA gave; its number is the address."""

    def __int__(self) -> int:
        """Return the address."""
        ...

    def free(self) -> None:
        """Give it back."""
        ...


class Outputs:
    """Memory and shapes of such outputs; call it inside ``Device.current``.

    Attributes:
        found: where each output lies since the last inference.
        kept: what was raised while TensorRT asked; it sees only that it got no memory.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory: dict[str, tuple[int, Allocation]] = {}
        self.found: dict[str, Found] = {}
        self.kept = Kept()

    def allocate(self, name: str, size: int) -> int:
        """Return an address with ``size`` bytes for an output; 0 if that failed."""
        with self.kept:
            have = self._memory.get(name)
            if have is None or size > have[0]:
                self._memory.pop(name, None)
                if have is not None:
                    have[1].free()
                room = max(size, LEAST)
                have = self._memory[name] = (room, self._device.cuda.mem_alloc(room))
            return int(have[1])
        return 0

    def shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Take the shape of an output."""
        with self.kept:
            self.found[name] = Found(int(self._memory[name][1]), shape)

    def close(self) -> None:
        """Give the memory back."""
        for _, memory in self._memory.values():
            memory.free()
        self._memory = {}


def make(module: Module, outputs: Outputs) -> IOutputAllocator:
    """Return an allocator that asks ``outputs``; keep it for as long as the context."""
    base = module.IOutputAllocator

    class Allocator(base):  # type: ignore[misc,valid-type]  # the base exists once TensorRT is imported
        def __init__(self) -> None:
            base.__init__(self)

        def reallocate_output(
            self,
            tensor_name: str,
            memory: int,  # noqa: ARG002  # TensorRT's signature, here and below
            size: int,
            alignment: int,  # noqa: ARG002
        ) -> int:
            return outputs.allocate(tensor_name, size)

        def reallocate_output_async(
            self,
            tensor_name: str,
            memory: int,  # noqa: ARG002
            size: int,
            alignment: int,  # noqa: ARG002
            stream: int,  # noqa: ARG002
        ) -> int:
            return outputs.allocate(tensor_name, size)

        def notify_shape(self, tensor_name: str, shape: Dims) -> None:
            outputs.shape(tensor_name, tuple(shape[axis] for axis in range(len(shape))))

    made: IOutputAllocator = Allocator()
    return made
