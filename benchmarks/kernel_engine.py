"""An engine that is a few small kernels of our own: y = 2 x + 1, a row at a time.

It stands for a backend where none can run: all of it is known, how long it takes included, so the
GPU runner's copies, order, times and CUDA graphs can be checked.
"""

from collections.abc import Mapping

import numpy as np

from quantlab.cuda.device import Device
from quantlab.cuda.nvrtc import compile_source
from quantlab.engines.base import Array
from quantlab.engines.device import Fit, Found, Shape
from quantlab.engines.layers import ran
from quantlab.records import EngineInfo, Layer, TensorSpec

COLUMNS = 1024

SOURCE = """
extern "C" __global__ void affine(const float* x, float* y, unsigned long long size) {
    const unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i < size; i += step) y[i] = 2.0f * x[i] + 1.0f;
}

extern "C" __global__ void spin(unsigned long long nanoseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
"""


class KernelExecutor:
    """An Executor (quantlab.engines.device): input x and output y, float32 [N, COLUMNS].

    Args:
        device: the GPU.
        repeats: how often the same is computed: launches of an inference.
        spin: nanoseconds that an inference takes at least.
        synchronizes: whether it waits for the stream, which cannot be captured.
    """

    inputs = (TensorSpec("x", "float32", ("N", COLUMNS)),)
    outputs = (TensorSpec("y", "float32", ("N", COLUMNS)),)

    def __init__(
        self, device: Device, *, repeats: int = 1, spin: int = 0, synchronizes: bool = False
    ) -> None:
        self._device, self._repeats, self._spin = device, repeats, spin
        self._synchronizes = synchronizes
        self._size = 0
        with device.current():
            code = compile_source(SOURCE, device.architecture)
            self._module = device.cuda.module_from_buffer(code)
            self._affine = self._module.get_function("affine")
            self._affine.prepare("PPQ")
            self._wait = self._module.get_function("spin")
            self._wait.prepare("Q")

    def fit(self, shapes: Mapping[str, Shape]) -> Fit:
        """Take any number of rows."""
        rows, columns = shapes["x"]
        self._size = rows * columns
        return Fit({"y": shapes["x"]})

    def enqueue(self, addresses: Mapping[str, int]) -> Mapping[str, Found]:
        """Launch the kernels."""
        stream = self._device.stream
        if self._spin:
            self._wait.prepared_async_call((1, 1), (1, 1, 1), stream, self._spin)
        grid = (min(self._size // 256, 1024), 1)
        for _ in range(self._repeats):
            self._affine.prepared_async_call(
                grid, (256, 1, 1), stream, addresses["x"], addresses["y"], self._size
            )
        if self._synchronizes:
            with self._device.current():  # so that CUDA's refusal becomes an EngineError
                stream.synchronize()
        return {}

    def capturable(self) -> str:
        """Nothing is against it."""
        return ""

    def describe(
        self,
        inputs: Mapping[str, Array],  # noqa: ARG002  # the Executor protocol's signature
        addresses: Mapping[str, int],  # noqa: ARG002  # as above
    ) -> EngineInfo:
        """Return the kernels."""
        layers = (Layer("affine", "Affine", "f32", weighted=False),)
        return EngineInfo("kernels", self._device.name, 1, "fp32", ran(layers), layers)

    def close(self) -> None:
        """Drop the module."""
        del self._affine, self._wait, self._module


def answer(inputs: Mapping[str, Array]) -> Array:
    """Return y."""
    return np.asarray(2 * inputs["x"].astype(np.float32) + 1)
