"""What an engine backend is: it builds a model for a precision and opens what it built.

An implementation is a frozen dataclass of its config keys in ``quantlab/engines/<name>.py``.  It
imports its library inside its methods, and raises EngineUnavailable, naming what to install, when
that fails.  Exceptions of the library never leave it: they become EngineError.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from quantlab.records import Build, EngineInfo, Precision

Array = NDArray[np.generic]


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


class Engine(Protocol):
    """A backend."""

    name: ClassVar[str]
    """Its name in ENGINES and in the config."""

    policy: ClassVar[str]
    """Placement policy of its INT8 model: "tensorrt" or "onnxruntime"."""

    def available(self) -> str:
        """Return the library's version and device in a sentence.

        Raises:
            EngineUnavailable: it cannot be used here; the message says why and what to install.
        """
        ...

    def build(self, model: Path, precision: Precision, folder: Path) -> Build:
        """Build ``model`` into ``folder`` as ``<precision>.*``; the files appear whole or not.

        Args:
            model: ONNX file of this precision: prepared FP32, the FP16 graph, or the Q/DQ model.
            precision: what the model was made for.
            folder: ``<run folder>/engines``, existing.

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
