"""A GPU as PyCUDA shows it: its primary context, a stream, and quantlab's kernels.

The primary context is the one that ONNX Runtime and TensorRT use too, so a pointer of either is
the other's.  PyCUDA's objects belong to the thread that made them: use a Device on one thread.
The kernels are compiled when the first of them is asked for: running engines needs no NVRTC.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from quantlab.cuda.layout import DEFINITIONS
from quantlab.cuda.nvrtc import compile_source
from quantlab.errors import CalibrationError, EngineError, EngineUnavailable

CPU = "use the CPU: 'executor.kind: local' to calibrate, 'backend: openvino' to run engines"
"""What to do without a GPU."""


class OutOfDeviceMemory(CalibrationError):
    """The GPU's memory does not hold what was asked for; less at a time may fit."""


class Device:
    """One GPU.

    Args:
        index: which, as CUDA numbers them.

    Raises:
        EngineUnavailable: PyCUDA, the driver or the GPU is missing.

    Attributes:
        cuda: the module pycuda.driver.
        index: which GPU.
        bus: its PCI address, e.g. "0000:65:00.0".
        name: e.g. "NVIDIA H100 80GB HBM3".
        architecture: compute capability: 90 for 9.0.
        multiprocessors: how many it has.
        stream: the stream that everything of this Device is queued on.
    """

    def __init__(self, index: int = 0) -> None:
        self.cuda = driver()
        self.index = index
        number = self.cuda.Device.count()
        if index >= number:
            raise EngineUnavailable(
                f"GPU {index} was asked for, and this machine has {number}; "
                "they are numbered from 0, and CUDA_VISIBLE_DEVICES can hide some"
            )
        gpu = self.cuda.Device(index)
        self.name: str = gpu.name()
        major, minor = gpu.compute_capability()
        self.architecture = 10 * int(major) + int(minor)
        self.multiprocessors: int = gpu.multiprocessor_count
        self.bus: str = gpu.pci_bus_id()
        self._kernels: Any = None
        try:
            self._context = gpu.retain_primary_context()
            with self.current():
                self.stream = self.cuda.Stream()
        except (self.cuda.Error, EngineError, CalibrationError) as error:
            raise EngineUnavailable(
                f"GPU {index}, {self.name}, cannot be used: {error}; is it full, or another "
                "program's alone? See nvidia-smi"
            ) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread: all use of the GPU belongs inside.

        Raises:
            OutOfDeviceMemory: an allocation inside did not fit.
            EngineError: whatever else CUDA refused inside.
        """
        self._context.push()
        try:
            yield
        except self.cuda.MemoryError as error:
            raise OutOfDeviceMemory(f"{self.name}: out of memory ({error})") from error
        except self.cuda.Error as error:
            raise EngineError(f"{self.name}: {error}") from error
        finally:
            self._context.pop()

    def load_kernels(self) -> None:
        """Compile and load quantlab's kernels, if that was not done yet.

        Raises:
            EngineUnavailable: NVRTC is missing, or the GPU is older than all that it knows.
        """
        if self._kernels is None:
            code = kernels(self.architecture)
            with self.current():
                self._kernels = self.cuda.module_from_buffer(code)

    def function(self, name: str, signature: str) -> Any:
        """Return a kernel prepared for arguments of ``signature`` (struct's letters)."""
        self.load_kernels()
        found = self._kernels.get_function(name)
        found.prepare(signature)
        return found


def driver() -> Any:
    """Return the module pycuda.driver, initialised.

    Raises:
        EngineUnavailable: PyCUDA or the driver is missing, or there is no GPU.
    """
    try:
        cuda = import_module("pycuda.driver")
    except ImportError as error:
        if "libcuda" in str(error):
            raise EngineUnavailable(
                f"CUDA cannot be used: the NVIDIA driver is missing ({error}); install the driver, "
                f"or {CPU}"
            ) from error
        raise EngineUnavailable(
            f"CUDA cannot be used: PyCUDA cannot be imported ({error}); install it: "
            "pip install 'quantlab[gpu]'"
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise EngineUnavailable(
            f"CUDA cannot be used: {error}; check with nvidia-smi that the driver works and sees a "
            f"GPU, or {CPU}"
        ) from error
    return cuda


@cache
def kernels(architecture: int) -> bytes:
    """Return quantlab's kernels compiled for a compute capability (90 for 9.0)."""
    return compile_source(source(), architecture, DEFINITIONS)


def source() -> str:
    """Return the kernels' source."""
    return files("quantlab.cuda").joinpath("kernels.cu").read_text()
