"""A Q/DQ model built with the TensorRT that is installed, and what its builder said.

TensorRT itself comes first, then TensorRT-RTX, which needs no GPU to build.

Limits: what kernels were chosen is known where the plan is opened, on its GPU.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from quantlab.engines import ENGINES, TENSORRT
from quantlab.engines.base import BuildContext, Engine, ShapeRange
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.graph import model as graph
from quantlab.progress import Progress
from quantlab.records import TensorSpec
from quantlab.registry import make

BATCHES = (1, 8, 32)
"""Least, usual and largest size of an open first axis."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What building gave.

    Attributes:
        builder: which TensorRT, in its own words; "" if none can build here.
        path: the plan, relative to the output folder; "" if there is none.
        size_bytes, seconds: of the plan and of the build.
        notes: what the builder said that a reader must know.
        refused: why there is no plan; "" if there is one.
    """

    builder: str
    path: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    refused: str = ""


def plan(model: Path, folder: Path, progress: Progress, *, float16: bool = False) -> PlanReport:
    """Build ``model``, a Q/DQ model, into ``folder/engines``.

    What the builder refuses is in the report, not raised: the model is of use without a plan.

    Args:
        model: ONNX file.
        folder: where the plan goes, existing.
        progress: receives what is said.
        float16: whether FP16, not FP32, is around the integers.
    """
    around, missing = "fp16" if float16 else "fp32", []
    for name in TENSORRT:
        engine: Engine = make("backend", ENGINES, name, {"around": around})
        try:
            builder = engine.available()
        except EngineUnavailable as error:
            missing.append(str(error))
            continue
        return _build(engine, builder, model, folder, progress)
    return PlanReport(builder="", refused="; ".join(missing))


def _build(
    engine: Engine, builder: str, model: Path, folder: Path, progress: Progress
) -> PlanReport:
    engines = folder / "engines"
    engines.mkdir()
    try:
        shapes = {
            spec.name: _range(spec) for spec in graph.inputs(graph.reload(model)) if _open(spec)
        }
        context = BuildContext(shapes=shapes, progress=progress)
        built = engine.build(model, "int8", engines, context)
    except EngineError as error:
        shutil.rmtree(engines)  # a timing cache may be in it
        return PlanReport(builder=builder, refused=str(error))
    return PlanReport(builder, built.path, built.size_bytes, built.build_seconds, built.notes)


def _open(spec: TensorSpec) -> bool:
    return not all(isinstance(dim, int) for dim in spec.shape)


def _range(spec: TensorSpec) -> ShapeRange:
    """Return the shapes of an input whose first axis alone is open."""
    first, *rest = spec.shape
    fixed = [dim for dim in rest if isinstance(dim, int)]
    if isinstance(first, int) or len(fixed) != len(rest):
        raise EngineError(
            f"input {spec} has open axes beside the first, and nothing says which sizes will "
            "come; export the model with fixed ones"
        )
    return ShapeRange(*((size, *fixed) for size in BATCHES))
