"""ONNX Runtime sessions: threads, quiet logs, and errors in quantlab's own words.

ONNX Runtime raises a dozen exception types without a common base; all become EngineError here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantlab.engines.base import Array
from quantlab.engines.host import usable_cores
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.records import TensorSpec

Provider = str | tuple[str, dict[str, str]]
"""An execution provider's name, with its options if any."""

CPU: tuple[Provider, ...] = ("CPUExecutionProvider",)

SILENT = 4
"""Log severity "fatal": what fails is raised as an exception, which says the same."""

DTYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{
        f"tensor({sign}int{bits})": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
"""NumPy's name by ONNX Runtime's; other types cannot be fed as arrays."""

NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .+? failed:)?|/\S*/onnxruntime/\S+:\d+ "
)
"""Parts of ONNX Runtime's messages that repeat the path or speak of its sources."""


def library() -> Any:
    """Return the onnxruntime module.

    Raises:
        EngineUnavailable: it cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable(
            f"ONNX Runtime cannot be imported ({error}); install it: pip install onnxruntime"
        ) from error
    return onnxruntime


def session(
    model: Path | bytes,
    *,
    threads: int | None = None,
    providers: Sequence[Provider] = CPU,
    optimize: bool = True,
    profile: Path | None = None,
    tapped: bool = False,
) -> Any:
    """Return an ``onnxruntime.InferenceSession``.

    Args:
        model: ONNX file, or the serialized model.
        threads: of one inference; every core that this process may use if not given.
        providers: execution providers, the preferred one first; there is no fallback beyond them.
        optimize: whether nodes may be fused; without, every tensor of the model exists.
        profile: prefix of the profile's path, to time nodes.
        tapped: whether most tensors are outputs, which the caller works on between runs.  Then its
            threads leave the cores to the caller instead of spinning, and memory is not laid out
            ahead of a run: with so many outputs that makes runs slower.

    Raises:
        EngineError: ONNX Runtime refuses the model; its message names the node where it can.
    """
    chosen = options(threads)
    level = library().GraphOptimizationLevel
    chosen.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if profile is not None:
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(profile)
    if tapped:
        chosen.enable_mem_pattern = False
        chosen.add_session_config_entry("session.force_spinning_stop", "1")
    return loaded(model, chosen, providers)


def options(threads: int | None = None) -> Any:
    """Return ``onnxruntime.SessionOptions``: quiet, with that many threads or every usable core."""
    chosen = library().SessionOptions()
    chosen.intra_op_num_threads = threads or usable_cores()
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = SILENT
    return chosen


def loaded(model: Path | bytes, chosen: Any, providers: Sequence[Provider]) -> Any:
    """Return an ``onnxruntime.InferenceSession``; arguments and errors as for ``session``."""
    what = model.name if isinstance(model, Path) else "the model"
    with translated(f"ONNX Runtime cannot load {what}"):
        made = library().InferenceSession(
            model if isinstance(model, bytes) else str(model), chosen, providers=list(providers)
        )
    made.disable_fallback()
    return made


def specs(ports: Iterable[Any]) -> tuple[TensorSpec, ...]:
    """Return a session's ``get_inputs()`` or ``get_outputs()`` with NumPy's element types."""
    return tuple(
        TensorSpec(port.name, DTYPES.get(port.type, port.type), tuple(port.shape)) for port in ports
    )


def run(opened: Any, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the named outputs of one batch.

    Raises:
        EngineError: ONNX Runtime failed; the message names the node.
    """
    with translated("ONNX Runtime could not run the model"):
        values = opened.run(list(outputs), dict(inputs))
    return dict(zip(outputs, values, strict=True))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn ONNX Runtime's exceptions into an EngineError that begins with ``doing``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    foreign: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError)
    foreign += tuple(
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )
    try:
        yield
    except foreign as error:
        text = NOISE.sub("", str(error))
        raise EngineError(f"{doing}: {' '.join(text.split())}") from error
