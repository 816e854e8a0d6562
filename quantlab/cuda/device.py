"""A GPU as PyCUDA shows it: its primary context, a stream, and quantlab's kernels.

The primary context is the one that ONNX Runtime uses too, so a pointer of either is the other's.
PyCUDA's objects belong to the thread that made them: use a Device on one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from quantlab.cuda.layout import DEFINITIONS
from quantlab.cuda.nvrtc import INSTALL, compile_source
from quantlab.errors import CalibrationError, EngineError, EngineUnavailable


class OutOfDeviceMemory(CalibrationError):
    """The GPU's memory does not hold what was asked for; less at a time may fit."""


class Device:
    """One GPU.

    Args:
        index: which, as CUDA numbers them.

    Raises:
        EngineUnavailable: PyCUDA, the driver, the GPU or NVRTC is missing.

    Attributes:
        cuda: the module pycuda.driver.
        index: which GPU.
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
        code = kernels(self.architecture)
        try:
            self._context = gpu.retain_primary_context()
            with self.current():
                self.stream = self.cuda.Stream()
                self._module = self.cuda.module_from_buffer(code)
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

    def function(self, name: str, signature: str) -> Any:
        """Return a kernel prepared for arguments of ``signature`` (struct's letters)."""
        found = self._module.get_function(name)
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
                "or set 'executor.kind: local' to calibrate on the CPU"
            ) from error
        raise EngineUnavailable(
            f"CUDA cannot be used: PyCUDA cannot be imported ({error}); install it: {INSTALL}"
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise EngineUnavailable(
            f"CUDA cannot be used: {error}; check with nvidia-smi that the driver works and sees a "
            "GPU, or set 'executor.kind: local' to calibrate on the CPU"
        ) from error
    return cuda


@cache
def kernels(architecture: int) -> bytes:
    """Return quantlab's kernels compiled for a compute capability (90 for 9.0)."""
    return compile_source(source(), architecture, DEFINITIONS)


def source() -> str:
    """Return the kernels' source."""
    return files("quantlab.cuda").joinpath("kernels.cu").read_text()
