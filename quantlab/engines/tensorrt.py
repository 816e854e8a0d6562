"""TensorRT and TensorRT-RTX: not in this release; the classes say what is missing, and no more.

Choosing one in the config gives one clear error; nothing runs in its place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, NoReturn

from quantlab.engines.base import Runner
from quantlab.errors import EngineUnavailable
from quantlab.records import Build, Precision


@dataclass(frozen=True, slots=True)
class TensorRT:
    """TensorRT 8.6 to 11."""

    name: ClassVar[str] = "tensorrt"
    policy: ClassVar[str] = "tensorrt"
    module: ClassVar[str] = "tensorrt"

    def available(self) -> str:
        """Raise EngineUnavailable: what is missing, or that this release cannot build with it."""
        self._refuse()

    def build(self, model: Path, precision: Precision, folder: Path) -> Build:  # noqa: ARG002  # the Engine protocol's signature
        """Raise EngineUnavailable, as ``available`` does."""
        self._refuse()

    @contextmanager
    def open(self, build: Build, root: Path) -> Iterator[Runner]:  # noqa: ARG002  # as above
        """Raise EngineUnavailable, as ``available`` does."""
        self._refuse()
        yield

    def _refuse(self) -> NoReturn:
        for module in (self.module, "pycuda.driver"):
            try:
                import_module(module)
            except ImportError as error:
                raise EngineUnavailable(
                    f"{self.name} cannot be used: Python module {module!r} cannot be imported "
                    f"({error}); install it: pip install 'quantlab[{self.name}]'"
                ) from error
        _require_device(self.name)
        raise EngineUnavailable(
            f"{self.name} is installed, but building engines with it is not part of this release; "
            "use 'backend: openvino' or 'backend: onnxruntime'"
        )


@dataclass(frozen=True, slots=True)
class TensorRTRTX(TensorRT):
    """TensorRT-RTX."""

    name: ClassVar[str] = "tensorrt-rtx"
    module: ClassVar[str] = "tensorrt_rtx"


def _require_device(name: str) -> None:
    cuda = import_module("pycuda.driver")
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise EngineUnavailable(
            f"{name} cannot be used: CUDA does not start ({error}); install the NVIDIA driver"
        ) from error
    if count == 0:
        raise EngineUnavailable(f"{name} cannot be used: there is no CUDA device")
