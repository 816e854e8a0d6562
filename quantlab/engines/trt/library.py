"""TensorRT imported: its module, version and capabilities, or what is missing.

``tensorrt`` is whichever of 8.6 to 11 is installed; ``tensorrt-rtx`` is another library.  Neither
stands in for the other.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from quantlab.engines.trt.api_build import Module
from quantlab.engines.trt.capabilities import Capabilities, Name, capabilities
from quantlab.errors import EngineUnavailable

MODULES: dict[Name, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Python module by backend."""

TITLES: dict[Name, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""How a message calls it."""


@dataclass(frozen=True, slots=True)
class Library:
    """An imported TensorRT.

    Attributes:
        name: backend.
        module: the Python module.
        capabilities: what it can do.
    """

    name: Name
    module: Module
    capabilities: Capabilities

    @property
    def version(self) -> str:
        """Its version with all its numbers, such as "10.3.0.26"."""
        return self.module.__version__

    def __str__(self) -> str:
        """Return e.g. ``TensorRT 10.3.0.26``."""
        return f"{TITLES[self.name]} {self.version}"


def load(name: Name) -> Library:
    """Import a TensorRT.

    Raises:
        EngineUnavailable: it is not installed, does not load, or has an unknown version; the
            message says what to install.
    """
    try:
        found = import_module(MODULES[name])
    except (ImportError, OSError, RuntimeError) as error:
        # OSError and RuntimeError: what NVIDIA's packages let through where a library is missing
        raise EngineUnavailable(
            f"{TITLES[name]} cannot be used: Python module {MODULES[name]!r} cannot be imported "
            f"({error}); install it: pip install 'quantlab[{name}]'{_other(name)}"
        ) from error
    return library(name, cast(Module, found))


def library(name: Name, module: Module) -> Library:
    """Return an imported module with its capabilities; Raises as ``capabilities``."""
    return Library(name, module, capabilities(name, module.__version__))


def _other(name: Name) -> str:
    """Return a hint at the other TensorRT, if that one is installed."""
    other: Name = "tensorrt-rtx" if name == "tensorrt" else "tensorrt"
    if find_spec(MODULES[other]) is None:
        return ""
    return f"; {TITLES[other]} is installed: 'backend: {other}' uses it"
