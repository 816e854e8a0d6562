"""ONNX Runtime's CUDA provider as an Executor: it reads and writes our memory, on our stream.

Inputs, and outputs whose shape follows from the inputs' by the model's own axis names, are bound
to addresses; ONNX Runtime allocates the others, whose shape is known only after an inference.
A CUDA graph holds what runs on the GPU, so a model of which a part runs on the CPU, or which
decides on the way what to run, cannot be captured.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from quantlab.cuda.device import Device
from quantlab.engines.base import Array
from quantlab.engines.device import Fit, Found, GpuRunner, Shape
from quantlab.engines.ort_session import CPU, Provider, library, loaded, options, specs, translated
from quantlab.engines.signature import supported
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.records import EngineInfo, TensorSpec

CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {"use_tf32": "0"}
"""FP32 means FP32: by default the CUDA provider rounds factors to TF32's 10 bits."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})

NO_FALLBACK = "session.disable_cpu_ep_fallback"
"""Makes ONNX Runtime refuse a model of which a node would run on the CPU."""

Describe = Callable[[Mapping[str, Array]], EngineInfo]


class CudaSession:
    """An Executor (quantlab.engines.device).

    Args:
        session: of ONNX Runtime, on the stream of the Device that the runner has.
        where: whose memory the addresses are of: ("cuda", number of the GPU).
        describe: says what runs, given inputs.
        obstacle: why it cannot be captured in a CUDA graph; "" if it can.
    """

    def __init__(
        self, session: Any, where: tuple[str, int], *, describe: Describe, obstacle: str = ""
    ) -> None:
        self._session, self._where = session, where
        self._describe, self._obstacle = describe, obstacle
        self._inputs = specs(session.get_inputs())
        self._outputs = specs(session.get_outputs())
        self._types = {port.name: np.dtype(port.dtype).type for port in self.inputs + self.outputs}
        self._options = library().RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._shapes: dict[str, Shape] = {}
        self._bindings: dict[tuple[int, ...], Any] = {}
        self._late: list[str] = []
        self._last: Any = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives."""
        return self._outputs

    def fit(self, shapes: Mapping[str, Shape]) -> Fit:
        """Find the outputs' shapes; see ``Executor.fit``."""
        sizes = axes(self._inputs, shapes)
        known = {port.name: shape_of(port, sizes) for port in self._outputs}
        self._bindings, self._last = {}, None
        self._late = [name for name, shape in known.items() if shape is None]
        self._shapes = dict(shapes) | {
            name: shape for name, shape in known.items() if shape is not None
        }
        return Fit(known)

    def enqueue(self, addresses: Mapping[str, int]) -> Mapping[str, Found]:
        """Queue one inference; see ``Executor.enqueue``."""
        with translated("ONNX Runtime could not run the model"):
            binding = self._binding(addresses)
            self._session.run_with_iobinding(binding, self._options)
            if not self._late:
                return {}
            self._last = binding  # it owns the outputs
            values = dict(
                zip([port.name for port in self._outputs], binding.get_outputs(), strict=True)
            )
            return {
                name: Found(values[name].data_ptr(), tuple(values[name].shape()))
                for name in self._late
            }

    def capturable(self) -> str:
        """Say why it cannot be captured; see ``Executor.capturable``."""
        return self._obstacle

    def describe(
        self,
        inputs: Mapping[str, Array],
        addresses: Mapping[str, int],  # noqa: ARG002  # the Executor protocol's signature
    ) -> EngineInfo:
        """Profile the inputs in a session of its own; see ``Executor.describe``."""
        return self._describe(inputs)

    def close(self) -> None:
        """Drop the session and what it holds."""
        self._bindings, self._last, self._session = {}, None, None

    def _binding(self, addresses: Mapping[str, int]) -> Any:
        """Return a binding of these addresses; a new one where ONNX Runtime allocates outputs."""
        key = tuple(addresses.values())
        if key in self._bindings:
            return self._bindings[key]
        binding = self._session.io_binding()
        for port in self._inputs:
            name, shape = port.name, list(self._shapes[port.name])
            binding.bind_input(name, *self._where, self._types[name], shape, addresses[name])
        for port in self._outputs:
            name = port.name
            if name in self._late:
                binding.bind_output(name, *self._where)
            else:
                shape = list(self._shapes[name])
                binding.bind_output(name, *self._where, self._types[name], shape, addresses[name])
        if not self._late:
            self._bindings[key] = binding
        return binding


@contextmanager
def running(
    model: Path, *, device_id: int, cuda_graph: bool, describe: Describe
) -> Iterator[GpuRunner]:
    """Load an ONNX file for running on a GPU.

    Raises:
        EngineUnavailable: ONNX Runtime's CUDA provider, PyCUDA, the driver or the GPU is missing.
        EngineError: ONNX Runtime refuses the model.
    """
    device = Device(device_id)
    with device.current():
        session, obstacle = _opened(model, device, cuda_graph=cuda_graph)
        supported(specs((*session.get_inputs(), *session.get_outputs())), "ONNX Runtime")
        where = ("cuda", device.index)
        executor = CudaSession(session, where, describe=describe, obstacle=obstacle)
        del session
    with GpuRunner(device, executor, cuda_graph=cuda_graph) as runner:
        yield runner


def axes(inputs: tuple[TensorSpec, ...], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Return the size of each named axis of the inputs, without names that stand for two sizes."""
    found: dict[str, set[int]] = {}
    for spec in inputs:
        for axis, size in zip(spec.shape, shapes[spec.name], strict=True):
            if isinstance(axis, str):
                found.setdefault(axis, set()).add(size)
    return {axis: sizes.pop() for axis, sizes in found.items() if len(sizes) == 1}


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> Shape | None:
    """Return an output's shape if it follows from the sizes of named axes, else None.

    ONNX Runtime shows a scalar and a tensor of unknown rank alike, so neither counts as known.

    >>> shape_of(TensorSpec("y", "float32", ("N", 10)), {"N": 4})
    (4, 10)
    """
    if not spec.shape:
        return None
    found = tuple(sizes.get(axis) if isinstance(axis, str) else axis for axis in spec.shape)
    return None if None in found else tuple(int(axis) for axis in found if axis is not None)


def checked(session: Any) -> Any:
    """Return a session if it runs on the CUDA provider.

    Raises:
        EngineUnavailable: it does not.
    """
    if session.get_providers()[0] != CUDA:
        raise EngineUnavailable(
            "ONNX Runtime has the CUDA provider but could not load it: a CUDA or cuDNN library or "
            "the device is missing; install them: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return session


def _opened(model: Path, device: Device, *, cuda_graph: bool) -> tuple[Any, str]:
    """Return a session on the device's stream, and why it cannot be captured."""
    own = {"device_id": str(device.index), "user_compute_stream": str(device.stream.handle)}
    providers: tuple[Provider, ...] = ((CUDA, CUDA_OPTIONS | own), *CPU)
    obstacle = control_flow(model) if cuda_graph else ""
    if cuda_graph and not obstacle:
        whole = options()
        whole.add_session_config_entry(NO_FALLBACK, "1")
        try:
            return checked(loaded(model, whole, providers)), ""
        except EngineError as error:
            if "fallback" not in str(error):
                raise
            obstacle = "ONNX Runtime runs a part of the model on the CPU"
    return checked(loaded(model, options(), providers)), obstacle


def control_flow(model: Path) -> str:
    """Return which operation keeps a model from being captured; "" if none does."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    found = sorted({node.op_type for node in graph.node} & CONTROL_FLOW)
    return f"{found[0]} decides what runs only when it is reached" if found else ""
