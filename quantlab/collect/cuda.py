"""Collect activations on a GPU: the model runs there, they are counted there, counts come back.

ONNX Runtime's CUDA provider and quantlab's kernels share one stream.  So a batch's kernels read its
activations in place, and the host, which waits for nothing but room to upload into, prepares the
next batch meanwhile.

For the same activations the histograms are those of the CPU, bit for bit.  The activations are not
the CPU's: convolutions sum in another order, and may do so for another batch size.  What can be
pinned is: FP32 is not rounded to TF32, and cuDNN's algorithm is chosen by rule, not by a stopwatch,
so that a repeated run counts the same.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.collect.accumulator import Accumulators
from quantlab.cuda.counter import Counter, Ranges, View
from quantlab.cuda.device import Device, OutOfDeviceMemory
from quantlab.cuda.layout import KINDS
from quantlab.cuda.staging import Staging
from quantlab.datasets.base import Array
from quantlab.engines.ort_session import SILENT, library, session, specs, translated
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.histogram import Histogram
from quantlab.records import TensorSpec

CUDA = "CUDAExecutionProvider"

INSTALL = (
    "pip uninstall onnxruntime && pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]', "
    "or set 'executor.kind: local' to calibrate on the CPU"
)

OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",  # the default times algorithms and takes the fastest
    "arena_extend_strategy": "kSameAsRequested",  # the default doubles, and so asks for too much
}

FULL = re.compile(r"out of memory|failed to allocate|alloc_failed|available memory", re.IGNORECASE)
"""What ONNX Runtime, cuDNN and cuBLAS say when the GPU's memory does not suffice."""


class CudaLane:
    """A lane (see ``lane.Lane``) on a GPU.

    Args:
        model: ONNX file whose outputs include ``tensors`` that are not inputs (graph.tap).
        tensors: to count.
        inputs: of the model.
        device_id: which GPU.
        memory: bytes that ONNX Runtime may take of the GPU's memory; all of it if not given.

    Raises:
        EngineUnavailable: ONNX Runtime's CUDA provider, PyCUDA, NVRTC, the driver or the GPU is
            missing; the message says what to install.
        EngineError: ONNX Runtime refuses the model.
        OutOfDeviceMemory: the model alone does not fit.
    """

    def __init__(
        self,
        model: Path,
        tensors: Sequence[str],
        inputs: Sequence[TensorSpec],
        *,
        device_id: int = 0,
        memory: int | None = None,
    ) -> None:
        require_provider()
        self._device = Device(device_id)
        with self._device.current(), _explained(model.name):
            self._session = _opened(model, self._device, memory)
            self._inputs = {port.name: Staging(self._device) for port in inputs}
            ports = (*self._session.get_inputs(), *self._session.get_outputs())
            self._dtypes = {port.name: _dtype(port) for port in specs(ports)}
            self._outputs = [name for name in tensors if name not in self._inputs]
            here = [name for name in tensors if self._dtypes[name] in KINDS]
            self._on_device, self._counter = here, Counter(self._device, here)
        self._on_host = [name for name in tensors if name not in here]
        self._accumulators = Accumulators(self._on_host)
        self._order = [[*here, *self._on_host].index(name) for name in tensors]
        self._tensors = tuple(tensors)
        self._options = library().RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._binding: Any = None
        self._inferences: list[tuple[Any, Any]] = []

    @property
    def seconds(self) -> float:
        """Time that the GPU spent in the model since ``take``; waits for it."""
        with self._device.current():
            self._device.stream.synchronize()
            return float(sum(start.time_till(stop) for start, stop in self._inferences)) / 1e3

    def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
        """Queue one slice of a batch; see ``Lane.run``.

        Raises:
            EngineError: the model cannot be run on it.
            OutOfDeviceMemory: it does not fit; nothing of it was counted, so it can be given again
                in parts.
        """
        with self._device.current():
            with _explained(f"samples {samples.min()} to {samples.max()}"):
                views = self._infer(arrays)
                ranges = self._counter.add([views[name] for name in self._on_device], samples)
            for number, name in enumerate(self._on_host):
                values = arrays[name] if name in self._inputs else self._fetch(views[name])
                self._accumulators.add(number, values, samples)
            here = self._accumulators.ranges()
        return lambda: np.concatenate([ranges(), here])[self._order]

    def take(self) -> dict[str, Histogram]:
        """Return what was counted since the last ``take`` and start anew; waits for the GPU."""
        found = self._counter.take() | self._accumulators.take()
        with self._device.current():  # where another thread than the maker may drop PyCUDA's events
            self._inferences.clear()
        return {name: found[name] for name in self._tensors}

    def _infer(self, arrays: Mapping[str, Array]) -> dict[str, View]:
        """Queue upload and inference; return where inputs and outputs will be."""
        self._binding = None  # its activations' memory is this batch's: the stream keeps the order
        views = {
            name: View(staging.put(arrays[name]), arrays[name].shape, self._dtypes[name])
            for name, staging in self._inputs.items()
        }
        if not self._outputs:
            return views
        where, stream = ("cuda", self._device.index), self._device.stream
        start, stop = self._device.cuda.Event(), self._device.cuda.Event()
        with translated("ONNX Runtime could not run the model"):
            binding = self._session.io_binding()
            for name, view in views.items():
                dtype = arrays[name].dtype.type
                binding.bind_input(name, *where, dtype, list(view.shape), view.address)
            for name in self._outputs:
                binding.bind_output(name, *where)
            start.record(stream)
            self._session.run_with_iobinding(binding, self._options)
            stop.record(stream)
        self._inferences.append((start, stop))
        self._binding = binding
        for name, value in zip(self._outputs, binding.get_outputs(), strict=True):
            views[name] = View(value.data_ptr(), tuple(value.shape()), self._dtypes[name])
        return views

    def _fetch(self, view: View) -> Array:
        values: Array = np.empty(view.shape, view.dtype)
        self._device.stream.synchronize()
        if values.size:
            self._device.cuda.memcpy_dtoh(values, view.address)
        return values


def require_provider() -> None:
    """Raise EngineUnavailable if ONNX Runtime has no CUDA provider; says what to install."""
    ort = library()
    if CUDA not in ort.get_available_providers():
        raise EngineUnavailable(
            f"the installed onnxruntime {ort.__version__} has no CUDA provider; replace it: "
            f"{INSTALL}"
        )
    ort.preload_dlls()  # finds the CUDA libraries that pip installed
    ort.set_default_logger_severity(SILENT)  # it warns of plug-ins that nobody asked for


def _opened(model: Path, device: Device, memory: int | None) -> Any:
    """Return the session, on the device's stream."""
    own = {"device_id": str(device.index), "user_compute_stream": str(device.stream.handle)}
    if memory is not None:
        own["gpu_mem_limit"] = str(memory)
    providers = ((CUDA, OPTIONS | own), "CPUExecutionProvider")
    opened = session(model, providers=providers, tapped=True)
    if CUDA not in opened.get_providers():
        raise EngineUnavailable(
            "ONNX Runtime's CUDA provider does not start: CUDA's libraries or cuDNN's are missing "
            f"or of another major version than it was built for; {INSTALL}"
        )
    return opened


def _dtype(spec: TensorSpec) -> str:
    return "bfloat16" if spec.dtype == "tensor(bfloat16)" else spec.dtype


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn errors about memory into OutOfDeviceMemory that says what to do."""
    try:
        yield
    except (EngineError, OutOfDeviceMemory) as error:
        if isinstance(error, EngineError) and not FULL.search(str(error)):
            raise
        raise OutOfDeviceMemory(
            f"calibration, {doing}: the GPU's memory does not suffice ({error}); lower "
            "'calibration.batch', or set 'executor.halve_batch: true' to let it halve the batch"
        ) from error
