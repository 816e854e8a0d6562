"""The GPUs that a TensorRT-RTX plan is built for: names, checks, and what a plan covers.

TensorRT-RTX builds without a GPU, for compute capabilities.  A name is the enum's in lower case:
``sm86`` is compute capability 8.6.  Without a choice a plan covers 8.0, 8.6, 8.9, 12.0, 12.1 and
what comes after 12.0; with one, exactly what was chosen; 7.5 (Turing) only when it is chosen.

Sources: ``tensorrt_rtx.ComputeCapability`` of 1.7.1; what its runtime says of a GPU that it
refuses, "Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0"; and NVIDIA, TensorRT-RTX,
"CPU-Only AOT and TensorRT-RTX Engines".
Limit: whether a plan for 12.0 alone would also start on 12.1 is not documented, so it is refused.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from quantlab.engines.trt.api_build import Module

Capability = tuple[int, int]
"""Compute capability: (8, 6) for 8.6."""

DEFAULT: tuple[str, ...] = ("sm80", "sm86", "sm89", "sm120", "sm121")
"""What a plan covers when no target is chosen, beside everything newer than NEWER."""

NEWER: Capability = (12, 0)
"""A plan without chosen targets also runs on every later compute capability."""

SPECIAL = frozenset({"NONE", "CURRENT"})
"""Members of the enum that are no GPU; CURRENT would need one in the machine that builds."""

_NAME = re.compile(r"sm(\d+)(\d)")


def known(module: "Module") -> tuple[str, ...]:
    """Return the names that the installed TensorRT-RTX has, rising."""
    members = set(module.ComputeCapability.__members__) - SPECIAL
    return tuple(sorted((name.lower() for name in members), key=capability))


def parse(text: str) -> tuple[str, ...]:
    """Return the names in ``sm86,sm89``, each once.

    Raises:
        ConfigError: nothing in it, or what is no name of a compute capability.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not names:
        raise ConfigError("expected targets such as sm86,sm89,sm120, got none", "targets")
    for name in names:
        capability(name)
    return names


def capability(name: str) -> Capability:
    """Return the compute capability that a name stands for.

    >>> capability("sm86"), capability("sm120")
    ((8, 6), (12, 0))

    Raises:
        ConfigError: not of the form ``sm86``.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"target {name!r}: expected a compute capability such as sm86 for 8.6; "
            "they are listed by GPU at developer.nvidia.com/cuda-gpus",
            "targets",
        )
    return int(found[1]), int(found[2])


def require(names: Sequence[str], module: "Module") -> None:
    """Check that the installed TensorRT-RTX can build for ``names``.

    Raises:
        ConfigError: it cannot; says which it can.
    """
    supported = known(module)
    for name in names:
        if name not in supported:
            raise ConfigError(
                f"target {name!r}: TensorRT-RTX {module.__version__} has no such compute "
                f"capability; it builds for {', '.join(supported)}. For other GPUs, such as H100 "
                "(9.0) and B200 (10.0), use 'backend: tensorrt'",
                "targets",
            )


def covers(names: Sequence[str], gpu: Capability) -> bool:
    """Return whether a plan built for ``names`` (none: TensorRT-RTX's default) runs on a GPU."""
    if names:
        return gpu in map(capability, names)
    return gpu in map(capability, DEFAULT) or gpu > NEWER


def check(names: Sequence[str], gpu: str, found: Capability, *, what: str) -> None:
    """Check that a plan runs on a GPU.

    Args:
        names: the plan's targets.
        gpu: the GPU's name.
        found: its compute capability.
        what: the plan, for the message.

    Raises:
        EngineError: it does not; says what it runs on and what to do.
    """
    if covers(names, found):
        return
    built = ", ".join(names) if names else "TensorRT-RTX's default targets"
    remedy = f"build it with --targets sm{found[0]}{found[1]}"
    if not _supported(found):
        remedy = (
            f"TensorRT-RTX does not support this GPU at all (it supports {described()}); "
            "use 'backend: tensorrt', or another GPU"
        )
    raise EngineError(
        f"{what}: built for {built}, which {gpu} with compute capability {found[0]}.{found[1]} is "
        f"not among; {remedy}"
    )


def described() -> str:
    """Return every compute capability that TensorRT-RTX runs on, in words."""
    always = ", ".join("{}.{}".format(*capability(name)) for name in DEFAULT)
    return f"7.5 if asked for, {always} and later"


def _supported(gpu: Capability) -> bool:
    return gpu == (7, 5) or covers((), gpu)
