"""The process of a cell, in the tool's own environment: does the work and writes what it cost.

    python -m benchmarks.peers.child REQUEST.json

A work imports its libraries when it is looked up, and is measured when it is called.  The answer
is ``cost.json`` in the request's folder, because the tools print what they like.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.peers.request import Request

T = TypeVar("T")

Work = Callable[[], int | dict[str, float]]
"""Returns the number of thresholds, or each tensor's milliseconds of search."""

PACKAGES = (
    *("quantlab", "numpy", "numba", "onnx", "onnxruntime", "onnxruntime-gpu"),
    *("nvidia-modelopt", "torch", "nncf", "openvino"),
)
"""Whose versions are told, where they are installed."""

KIB = 1024


def work(request: Request) -> Work:
    """Import what the tool needs and return its work."""
    tool, _, method = request.tool.partition("-")
    if tool == "search":
        from benchmarks.peers import searching

        return searching.WORKS[method](request)
    from benchmarks.peers import works

    return works.WORKS[tool](request, method)


def versions() -> dict[str, str]:
    """Return the versions of PACKAGES that are here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def memory(key: str) -> int:
    """Return a size of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * KIB
    raise SystemExit(f"/proc/self/status has no {key}; the comparison needs Linux")


def measured(call: Callable[[], T]) -> tuple[T, dict[str, Any]]:
    """Return what a call returns, and what it cost."""
    start = memory("VmRSS")
    started = time.perf_counter()
    result = call()
    cost = {
        "seconds": time.perf_counter() - started,
        "start_bytes": start,
        "peak_bytes": memory("VmHWM"),
        "versions": versions(),
    }
    return result, cost


def main(path: Path) -> None:
    """Measure, and write the answer."""
    request = Request.read(path)
    result, cost = measured(work(request))
    cost["tensors"] = len(result) if isinstance(result, dict) else result
    cost["milliseconds"] = result if isinstance(result, dict) else {}
    (Path(request.folder) / "cost.json").write_text(json.dumps(cost))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
