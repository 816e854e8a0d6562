"""What an engine backend is: it builds a model for a precision and opens what it built.

An implementation is a frozen dataclass of its config keys in ``quantlab/engines/<name>.py``.  It
imports its library inside its methods, and raises EngineUnavailable, naming what to install, when
that fails.  Exceptions of the library never leave it: they become EngineError.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quantlab.progress import Progress, Silent
from quantlab.records import Build, EngineInfo, Precision, TensorSpec

Array = NDArray[np.generic]
Batches = Callable[[], Iterator[Mapping[str, Array]]]
"""Begins anew a pass over calibration batches: arrays by input name."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ONNX models an engine wants to be given.

    Attributes:
        explicit: whether INT8 is a model with Q/DQ nodes; if not, it is the prepared model, and
            the engine takes the calibration cache beside it.
        around: type of what INT8 leaves in floating point.
        pins: the types of nodes that are kept from a lower precision: a pattern of node names
            (fnmatch) to "fp32" or "fp16".
        ranges: whether it has to be told the shapes that will come.
    """

    explicit: bool = True
    around: Literal["fp32", "fp16"] = "fp32"
    pins: Mapping[str, Literal["fp32", "fp16"]] = field(default_factory=dict)
    ranges: bool = False


PLAIN = Recipe()
"""Q/DQ nodes in an FP32 model: what an engine wants unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes of an input that an engine must take: one entry an axis."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a backend may use beside the model; most use none of it.

    Attributes:
        cache: TensorRT's calibration cache of the prepared model; None where there is no INT8.
        shapes: of each input with an open axis, from the config and the calibration samples, where
            the recipe asks for ``ranges``.
        batches: calibration samples, for a backend that calibrates by itself.
        progress: receives what is said.
    """

    cache: Path | None = None
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    batches: Batches | None = None
    progress: Progress = field(default_factory=Silent)


NOTHING = BuildContext()


class Runner(Protocol):
    """An opened engine."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; return every output by name, as arrays that the caller owns.

        Raises:
            EngineError: the inputs do not fit, or the backend failed.
        """
        ...

    def describe(self) -> EngineInfo:
        """Say what runs: layers with their precision and, where told, their time.

        Call after at least one ``run``: some backends compile or time layers then.
        """
        ...


@runtime_checkable
class Signed(Runner, Protocol):
    """A runner that tells what it takes; all of quantlab's do."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The engine's inputs; an axis that is open has no number."""
        ...


@dataclass(frozen=True, slots=True)
class Queries:
    """Consecutive inferences on a device, timed there; one entry a query, in ms.

    Attributes:
        seconds: from the first copy to the device to the last copy back.  Neighbours overlap, so
            it is less than the sum of the latencies.
        h2d: copying the inputs to the device.
        compute: the inference, by the device's own clock.
        d2h: copying the outputs back.
        enqueue: host time that handing over the inference took.
    """

    seconds: float
    h2d: NDArray[np.float64]
    compute: NDArray[np.float64]
    d2h: NDArray[np.float64]
    enqueue: NDArray[np.float64]


@runtime_checkable
class DeviceRunner(Runner, Protocol):
    """A runner on a device with its own clock and memory: it is measured there, as trtexec does."""

    @property
    def cuda_graph(self) -> bool:
        """Whether inferences are replayed from a CUDA graph."""
        ...

    @property
    def bus(self) -> str:
        """The device's PCI address, by which its clock and power are found; "" if not known."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its times must know, such as a CUDA graph that could not be captured."""
        ...

    def queries(
        self, inputs: Mapping[str, Array], *, least: int, seconds: float, transfers: bool
    ) -> Queries:
        """Run ``inputs`` again and again, at least ``least`` times and for ``seconds``.

        What is done only the first time for these shapes is done before, and not timed.

        Args:
            inputs: one batch.
            least: number of queries.
            seconds: of host time.
            transfers: whether inputs and outputs are copied each time; if not, ``h2d`` and ``d2h``
                are 0.

        Raises:
            EngineError: the inputs do not fit, or the backend failed.
        """
        ...


class Engine(Protocol):
    """A backend."""

    name: ClassVar[str]
    """Its name in ENGINES and in the config."""

    policy: ClassVar[str]
    """Placement policy of its INT8 model: "tensorrt" or "onnxruntime"."""

    @property
    def recipe(self) -> Recipe:
        """What models it wants to be given."""
        ...

    def available(self) -> str:
        """Return the library's version and device in a sentence, where engines can be built.

        Raises:
            EngineUnavailable: they cannot; the message says why and what to install.
        """
        ...

    def runnable(self) -> None:
        """Check that what is built can be run here too, which may need more.

        Raises:
            EngineUnavailable: it cannot; the message says why.
        """
        ...

    def build(
        self, model: Path, precision: Precision, folder: Path, context: BuildContext = NOTHING
    ) -> Build:
        """Build ``model`` into ``folder`` as ``<precision>.*``; the files appear whole or not.

        Args:
            model: ONNX file of this precision, as ``recipe`` asks for.
            precision: what the model was made for.
            folder: ``<run folder>/engines``, existing.
            context: what else may be used.

        Raises:
            EngineError: the backend refuses the model; the message names the node where known.
        """
        ...

    def open(self, build: Build, root: Path) -> AbstractContextManager[Runner]:
        """Load an engine for running; ``root`` is the run folder that its paths are relative to.

        Raises:
            EngineError: the file is missing, or its SHA-256 is not the recorded one.
        """
        ...
