"""Running an engine on a GPU: the part that is the same for every backend.

    page-locked memory -> copy to the device -> inference -> copy back -> page-locked memory

all queued on one stream, then waited for.  The backend is an Executor: it is given addresses on
the device and queues an inference.  Measuring uses two sets of buffers and three streams
(quantlab.cuda.queries).  Buffers are as large as the engine's largest shapes, or grow where it
knows no limit.  A CUDA graph is captured once inputs of the same shapes came again, and dropped
when others come.  A runner belongs to one thread.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self

from quantlab.cuda import graphs
from quantlab.cuda.buffers import Buffer, bytes_of
from quantlab.cuda.device import Device, OutOfDeviceMemory
from quantlab.cuda.queries import Lane, Limit, timed
from quantlab.engines.base import Array, Queries
from quantlab.engines.signature import fitted
from quantlab.errors import EngineError
from quantlab.records import EngineInfo, TensorSpec

IN_FLIGHT = 2
"""Queries under way at once while measuring, as in trtexec."""

ENQUEUED = 2
"""Inferences before one is captured: ONNX Runtime still allocates in the second."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """What an executor does for inputs of the shapes that it was told.

    Attributes:
        outputs: shape of each output, None where it depends on the data.
        largest: the largest shape of an input or output that the engine can take without being
            told again which of its profiles to use; without those that have no limit.
    """

    outputs: Mapping[str, Shape | None]
    largest: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """Where an output lies whose shape depended on the data; until the next inference."""

    address: int
    shape: Shape


class Executor(Protocol):
    """A loaded engine, which queues on the stream of the Device that it was made for.

    Everything is called inside ``Device.current``, on one thread.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives."""
        ...

    def fit(self, shapes: Mapping[str, Shape]) -> Fit:
        """Make ready for inputs of these shapes.

        Raises:
            EngineError: the engine was not built for them.
        """
        ...

    def enqueue(self, addresses: Mapping[str, int]) -> Mapping[str, Found]:
        """Queue one inference; return the outputs that ``fit`` could not tell the shape of.

        Args:
            addresses: on the device, of every input and of every output whose shape is known.

        Raises:
            EngineError: the backend failed.
        """
        ...

    def capturable(self) -> str:
        """Return "" if an inference can be captured in a CUDA graph, else why not."""
        ...

    def describe(self, inputs: Mapping[str, Array], addresses: Mapping[str, int]) -> EngineInfo:
        """Say what runs, given inputs and addresses of an inference; change nothing of ``fit``."""
        ...

    def close(self) -> None:
        """Give back what it holds on the device."""
        ...


class GpuRunner:
    """A DeviceRunner; use it as a context manager, or ``close`` it.

    Args:
        device: the GPU and the stream that inferences run on.
        executor: the engine; it is closed with the runner.
        cuda_graph: whether to replay inferences from a CUDA graph.  If that cannot be done,
            ``notes`` says why and inferences are queued one by one.
    """

    def __init__(self, device: Device, executor: Executor, *, cuda_graph: bool = False) -> None:
        self._device, self._executor = device, executor
        self._graph_asked, self._graph_failure = cuda_graph, ""
        self._slots = [_Slot(device, executor) for _ in range(IN_FLIGHT)]
        self._shapes: dict[str, Shape] | None = None
        self._fit = Fit({})
        self._last: dict[str, Array] | None = None
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the engine takes."""
        return self._executor.inputs

    @property
    def cuda_graph(self) -> bool:
        """Whether inferences are replayed from a CUDA graph."""
        return self._graph_asked and not self._graph_failure

    @property
    def bus(self) -> str:
        """The GPU's PCI address."""
        return self._device.bus

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there is no CUDA graph although one was asked for."""
        text = "no CUDA graph could be captured, so inferences are queued one by one"
        return (f"{text}: {self._graph_failure}",) if self._graph_failure else ()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; see ``Runner.run``."""
        fed = fitted(inputs, self._executor.inputs)
        with self._using(fed):
            stream, slot = self._device.stream, self._slots[0]
            self._ready(fed, slot)
            try:
                self._once(slot)
            finally:  # also when it failed: the host memory must not be written while it is read
                stream.synchronize()
            results = slot.results()
        self._last = fed
        return results

    def queries(
        self, inputs: Mapping[str, Array], *, least: int, seconds: float, transfers: bool
    ) -> Queries:
        """Run a batch again and again; see ``DeviceRunner.queries``."""
        fed = fitted(inputs, self._executor.inputs)
        with self._using(fed):
            self._ready(fed, *self._slots)
            # An output whose place is found only in the inference lies there until the next one.
            slots = self._slots[:1] if None in self._fit.outputs.values() else self._slots
            try:
                for slot in slots:
                    for _ in range(max(1, self._before_graph(slot))):
                        self._once(slot)
                self._device.stream.synchronize()
                found = timed(
                    self._device,
                    [self._lane(slot) for slot in slots],
                    Limit(least, seconds),
                    transfers=transfers,
                )
            finally:
                self._device.cuda.Context.synchronize()
        self._last = fed
        return Queries(
            seconds=found.seconds,
            h2d=found.h2d,
            compute=found.compute,
            d2h=found.d2h,
            enqueue=found.enqueue,
        )

    def describe(self) -> EngineInfo:
        """Say what runs; see ``Runner.describe``."""
        if self._last is None:
            raise EngineError("describe() needs a batch that was run before")
        slot = self._slots[0]
        for _ in range(self._before_graph(slot)):  # so that a failure to capture is known
            self.run(self._last)
        with self._using(self._last):
            info = self._executor.describe(self._last, slot.addresses())
        return replace(info, notes=(*info.notes, *self.notes))

    def close(self) -> None:
        """Wait for the GPU and give back memory, graphs and engine; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        with self._device.current():
            self._device.cuda.Context.synchronize()
            for slot in self._slots:
                slot.close()
            self._slots = []
            self._executor.close()

    def _ready(self, fed: Mapping[str, Array], *slots: "_Slot") -> None:
        """Fit the engine and some slots to these inputs, and fill the slots with them."""
        shapes = {name: array.shape for name, array in fed.items()}
        if shapes != self._shapes:
            self._shapes = None
            for slot in self._slots:  # a graph is of the engine's state, which changes now
                slot.drop()
            self._fit = self._executor.fit(shapes)
            self._shapes = shapes
        for slot in slots:
            slot.reserve(shapes, self._fit)
            slot.fill(fed)

    def _once(self, slot: "_Slot") -> None:
        stream = self._device.stream
        slot.upload(stream)
        self._infer(slot)
        slot.download(stream)

    def _infer(self, slot: "_Slot") -> None:
        if self.cuda_graph and slot.graph is None and slot.enqueued >= ENQUEUED:
            self._capture(slot)
        if slot.graph is not None:
            slot.graph.launch(self._device.stream.handle)
        else:
            slot.late = self._executor.enqueue(slot.addresses())
            slot.enqueued += 1

    def _capture(self, slot: "_Slot") -> None:
        late = [name for name, shape in self._fit.outputs.items() if shape is None]
        self._graph_failure = self._executor.capturable()
        if late:
            self._graph_failure = f"the shape of output {late[0]!r} depends on the data"
        if self._graph_failure:
            return
        try:
            slot.graph = graphs.capture(
                lambda: self._executor.enqueue(slot.addresses()), self._device.stream.handle
            )
        except EngineError as error:
            self._graph_failure = str(error)

    def _before_graph(self, slot: "_Slot") -> int:
        """Return how many inferences are still to do until a graph is captured, it included."""
        if not self.cuda_graph or slot.graph is not None:
            return 0
        return ENQUEUED + 1 - slot.enqueued

    def _lane(self, slot: "_Slot") -> Lane:
        return Lane(slot.upload, lambda _: self._infer(slot), slot.download)

    @contextmanager
    def _using(self, fed: Mapping[str, Array]) -> Iterator[None]:
        if not self._open:
            raise EngineError("this engine was closed; open it again to run it")
        try:
            with self._device.current():
                yield
        except OutOfDeviceMemory as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in fed.items())
            raise EngineError(
                f"{error}; it was to run {shapes}: run a smaller batch, or free memory that other "
                "programs hold there (nvidia-smi)"
            ) from error


class _Slot:
    """Buffers of one inference, and the CUDA graph that uses them."""

    def __init__(self, device: Device, executor: Executor) -> None:
        self._executor = executor
        self._buffers: dict[str, Buffer] = {
            spec.name: Buffer(device) for spec in (*executor.inputs, *executor.outputs)
        }
        self._dtypes = {spec.name: spec.dtype for spec in (*executor.inputs, *executor.outputs)}
        self._shapes: dict[str, Shape] = {}
        self._fit: Fit | None = None
        self.graph: graphs.Graph | None = None
        self.late: Mapping[str, Found] = {}
        self.enqueued = 0

    def reserve(self, shapes: Mapping[str, Shape], fit: Fit) -> None:
        """Make room for inputs of ``shapes`` and for the outputs that are known."""
        if fit is self._fit:
            return
        known = {name: shape for name, shape in fit.outputs.items() if shape is not None}
        self._shapes = {**shapes, **known}
        for name, shape in self._shapes.items():
            dtype = self._dtypes[name]
            largest = fit.largest.get(name, ())
            size = max(bytes_of(shape, dtype), bytes_of(largest, dtype) if largest else 0)
            self._buffers[name].reserve(size)
        self._fit, self.late, self.enqueued = fit, {}, 0

    def fill(self, fed: Mapping[str, Array]) -> None:
        """Copy the inputs into page-locked memory."""
        for name, array in fed.items():
            self._buffers[name].host(array.shape, self._dtypes[name])[...] = array

    def addresses(self) -> dict[str, int]:
        """Return where inputs and known outputs lie on the device."""
        return {name: self._buffers[name].address for name in self._shapes}

    def upload(self, stream: Any) -> None:
        """Queue the copies to the device."""
        for spec in self._executor.inputs:
            size = bytes_of(self._shapes[spec.name], spec.dtype)
            self._buffers[spec.name].upload(size, stream)

    def download(self, stream: Any) -> None:
        """Queue the copies back."""
        for spec in self._executor.outputs:
            buffer, found = self._buffers[spec.name], self.late.get(spec.name)
            if found is None:
                buffer.download(bytes_of(self._shapes[spec.name], spec.dtype), stream)
            else:
                size = bytes_of(found.shape, spec.dtype)
                buffer.reserve(size)
                buffer.download(size, stream, found.address)

    def results(self) -> dict[str, Array]:
        """Return what was copied back, as arrays of their own."""
        found = {}
        for spec in self._executor.outputs:
            late = self.late.get(spec.name)
            shape = self._shapes[spec.name] if late is None else late.shape
            found[spec.name] = self._buffers[spec.name].host(shape, spec.dtype).copy()
        return found

    def drop(self) -> None:
        """Forget the graph, and what was reserved for; the buffers stay."""
        if self.graph is not None:
            self.graph.destroy()
        self.graph, self._fit = None, None

    def close(self) -> None:
        """Give everything back."""
        self.drop()
        for buffer in self._buffers.values():
            buffer.free()
