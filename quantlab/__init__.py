"""INT8 quantization and calibration for NVIDIA TensorRT.

    import quantlab as ql
    run = ql.run("config.yaml")

The functions are loaded when they are first used, so that importing quantlab costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantlab.pipeline import Run, analyze, build, calibrate, evaluate, report, run
    from quantlab.starter import init
    from quantlab.variants import try_methods

__version__ = "0.1.0"

__all__ = [
    "Run",
    "__version__",
    "analyze",
    "build",
    "calibrate",
    "evaluate",
    "init",
    "report",
    "run",
    "try_methods",
]

_HOMES = dict.fromkeys(
    ("Run", "analyze", "build", "calibrate", "evaluate", "report", "run"), "pipeline"
) | {
    "init": "starter",
    "try_methods": "variants",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'quantlab' has no attribute {name!r}")
    return getattr(import_module(f"quantlab.{_HOMES[name]}"), name)
