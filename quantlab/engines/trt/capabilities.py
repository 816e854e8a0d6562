"""What each TensorRT can do: the one table that version differences are looked up in.

A row counts from its version up to the next row's.  TensorRT-RTX has a row of its own: its numbers
are not TensorRT's.

Sources: the bindings of 8.6.1, 10.16.1.11, 11.4.0.106 and tensorrt_rtx 1.7.1 (what exists), the
release notes of 9.1 (STRONGLY_TYPED, IProgressMonitor) and 10.0 (STRIP_PLAN, ParserError's node
names), and NVIDIA, TensorRT 11, "Removed Python APIs and Replacements".
"""

from dataclasses import dataclass
from typing import Literal

from quantlab.errors import EngineUnavailable

Name = Literal["tensorrt", "tensorrt-rtx"]
Generation = Literal["8", "9", "10", "11", "rtx"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one TensorRT has.

    Attributes:
        generation: as ``ONLY`` in api_build.py and api_run.py calls it; 9 was never published.
        implicit: implicit quantization: weakly typed networks with precision flags, types of
            single layers, and calibrators that give scales.
        strong: whether a network can be strongly typed: its types are the ONNX graph's.
        explicit_batch: whether a network must be told that its shapes hold the batch.
        monitor: whether builds tell their progress and can be cancelled.
        named_errors: whether a parser error names its node; if not, it numbers it.
        strip_plan: whether plans can be built without their weights.
        timing_cache: whether builds time kernels, and a cache can keep the times.
        targets: whether builds are for a list of compute capabilities and need no GPU.
        runtime_cache: whether kernels are compiled when a plan is opened, and can be kept.
    """

    generation: Generation
    implicit: bool
    strong: bool
    explicit_batch: bool
    monitor: bool
    named_errors: bool
    strip_plan: bool
    timing_cache: bool = True
    targets: bool = False
    runtime_cache: bool = False


TABLE: dict[tuple[int, int], Capabilities] = {
    (8, 6): Capabilities(
        generation="8",
        implicit=True,
        strong=False,
        explicit_batch=True,
        monitor=False,
        named_errors=False,
        strip_plan=False,
    ),
    (9, 1): Capabilities(
        generation="9",
        implicit=True,
        strong=True,
        explicit_batch=True,
        monitor=True,
        named_errors=False,
        strip_plan=False,
    ),
    (10, 0): Capabilities(
        generation="10",
        implicit=True,
        strong=True,
        explicit_batch=False,
        monitor=True,
        named_errors=True,
        strip_plan=True,
    ),
    (11, 0): Capabilities(
        generation="11",
        implicit=False,
        strong=True,
        explicit_batch=False,
        monitor=True,
        named_errors=True,
        strip_plan=True,
    ),
}
"""TensorRT's rows, by the first version that they hold for."""

RTX = Capabilities(
    generation="rtx",
    implicit=False,
    strong=True,
    explicit_batch=False,
    monitor=True,
    named_errors=True,
    strip_plan=True,
    timing_cache=False,
    targets=True,
    runtime_cache=True,
)
"""TensorRT-RTX, from 1.1 on."""

OLDEST_RTX = (1, 1)
"""The first with IRuntimeCache and get_engine_validity; what is used of 1.7 is held by a test."""

NEWEST = 11
"""Largest major that was looked at."""


def capabilities(name: Name, version: str) -> Capabilities:
    """Return what the TensorRT of a version can do.

    Raises:
        EngineUnavailable: too old, newer than the table, or no version.
    """
    major, minor = _numbers(name, version)
    if name == "tensorrt-rtx":
        if (major, minor) < OLDEST_RTX:
            raise EngineUnavailable(
                f"TensorRT-RTX {version} is too old, 1.1 is the first that can be used; "
                "pip install --upgrade tensorrt-rtx-cu13"
            )
        return RTX
    rows = [since for since in TABLE if since <= (major, minor)]
    if not rows or major > NEWEST:
        raise EngineUnavailable(
            f"TensorRT {version} cannot be used: quantlab knows TensorRT 8.6 to {NEWEST}; "
            f"pip install 'tensorrt>=8.6,<{NEWEST + 1}'"
        )
    return TABLE[max(rows)]


def _numbers(name: Name, version: str) -> tuple[int, int]:
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise EngineUnavailable(
            f"{name}: expected a version such as 10.3.0, its module says {version!r}; "
            "install it again"
        )
    return int(parts[0]), int(parts[1])
