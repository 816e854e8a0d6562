"""One calibration in a process of its own: prints what it cost as JSON.

    python -m benchmarks.child WORK FOLDER BATCHES

The peak is VmHWM of /proc/self/status: getrusage's would include the parent's memory, which Linux
counts for a child until it has started its own program.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.registry import QDQRegistry

from benchmarks.collecting import infer
from benchmarks.material import RESNET, Material, made
from quantlab.collect.host import collect
from quantlab.datasets.base import Batch

BATCH = 8
"""Samples a batch."""

KIB = 1024


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches for ONNX Runtime's calibrators."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch's arrays, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch.arrays)


def quantlab(material: Material, batches: Iterator[Batch]) -> int:
    """Collect and decide as a run does."""
    return len(material.decide(collect(material.tapped, batches, material.tensors).histograms))


def plain(material: Material, batches: Iterator[Batch]) -> int:
    """Run the model over the batches and calibrate nothing."""
    infer(material, list(batches))
    return 0


def onnxruntime(
    method: CalibrationMethod, options: dict[str, int]
) -> Callable[[Material, Iterator[Batch]], int]:
    """Return the calibration that onnxruntime.quantization.quantize_static would do for Q/DQ."""

    def work(material: Material, batches: Iterator[Batch]) -> int:
        calibrator = create_calibrator(
            material.prepared,
            list(QDQRegistry),
            augmented_model_path=str(material.prepared.with_name("augmented.onnx")),
            calibrate_method=method,
            extra_options=options,
        )
        calibrator.collect_data(Reader(batches))
        return len(calibrator.compute_data().data)

    return work


WORKS: dict[str, Callable[[Material, Iterator[Batch]], int]] = {
    "plain": plain,
    "quantlab": quantlab,
    "ort-minmax": onnxruntime(CalibrationMethod.MinMax, {}),
    "ort-entropy": onnxruntime(CalibrationMethod.Entropy, {}),
    "ort-entropy-2048": onnxruntime(CalibrationMethod.Entropy, {"num_bins": 2048}),
}
"""By the name on the command line."""


def memory(key: str) -> int:
    """Return a size of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * KIB
    raise SystemExit(f"/proc/self/status has no {key}; the memory benchmark needs Linux")


def main(work: str, folder: Path, batches: int) -> None:
    """Do the work and print its cost."""
    logging.disable()  # ONNX Runtime's calibrators log every step
    material = made(RESNET, folder)
    with material.batches(BATCH, limit=BATCH * batches) as found:
        before = memory("VmRSS")
        cpu, started = time.process_time(), time.perf_counter()
        tensors = WORKS[work](material, found)
        cost = {
            "tensors": tensors,
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": memory("VmHWM"),
            "grown_bytes": memory("VmHWM") - before,
        }
    sys.stderr.flush()
    print(json.dumps(cost))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
