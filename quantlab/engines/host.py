"""The machine and the package versions that a measurement was made with."""

import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "quantlab",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "pycuda",
    "nvidia-cuda-nvrtc",
    "numba",
    "scipy",
    "pandas",
    "ray",
)
"""Packages that can change a threshold, an engine or a measurement."""

FLAGS = (
    # x86-64: the vector width, then what INT8, BF16 and FP16 kernels are chosen by
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8"),
    *("amx_int8", "amx_bf16", "amx_fp16", "avx512_bf16", "avx512_fp16", "f16c"),
    # ARM64: NEON, dot product, FP16 arithmetic, matrix products, scalable vectors
    *("neon", "asimd", "asimddp", "fphp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
"""CPU features that decide which kernels run, as Linux spells them."""


def host() -> dict[str, Any]:
    """Return what a reader needs to judge a measurement: CPU, cores, memory, system.

    ``usable_cores`` are those that this process may run on; ``flags`` is empty where the system
    does not tell them.
    """
    return {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "flags": cpu_flags(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """Return the installed versions among PACKAGES, without importing them."""
    return dict(_versions())


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Look once: finding a package's version reads its files."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def cpu_model() -> str:
    """Return the CPU's name, or its architecture where the system does not tell it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return the FLAGS that this CPU has."""
    info = _cpuinfo()
    present = set((info.get("flags") or info.get("Features") or "").split())
    return [flag for flag in FLAGS if flag in present]


def int8_saturates(architecture: str, flags: Sequence[str]) -> bool:
    """Whether INT8 kernels add pairs of products in 16 bits, which can saturate.

    x86-64 without VNNI or AMX has only ``vpmaddubsw`` for unsigned times signed bytes.

    Args:
        architecture: as ``platform.machine()`` spells it.
        flags: as ``cpu_flags`` gives them.
    """
    exact = {"avx512_vnni", "avx_vnni", "amx_int8"}
    return architecture in ("x86_64", "AMD64") and bool(flags) and exact.isdisjoint(flags)


def usable_cores() -> int:
    """Return how many physical cores this process may run on, at least 1."""
    physical = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's entries of Linux's /proc/cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    entries: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            entries.setdefault(key.strip(), value.strip())
    return entries
