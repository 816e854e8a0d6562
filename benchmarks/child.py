"""One calibration in a process of its own: prints what it cost as JSON.

    python -m benchmarks.child WORK FOLDER BATCHES SIZE

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
from quantlab.datasets.base import Batch
from quantlab.graph import tap

KIB = 1024


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches for ONNX Runtime's calibrators."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch's arrays, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch.arrays)


def quantlab(material: Material, size: int, samples: int) -> int:
    """Collect and decide as a run does."""
    found = material.collect(material.dataset(), size=size, limit=samples)
    return len(material.decide(found.histograms))


def plain(material: Material, size: int, samples: int) -> int:
    """Run the model over the batches and calibrate nothing."""
    infer(material.prepared, material.stored(samples).batches(material.inputs, size))
    return 0


def tapped(material: Material, size: int, samples: int) -> int:
    """Run the model over the batches with the tapped tensors as outputs, and drop them."""
    with tap.tapped(material.prepared, material.tensors) as model:
        infer(model, material.stored(samples).batches(material.inputs, size))
    return 0


def onnxruntime(
    method: CalibrationMethod, options: dict[str, int]
) -> Callable[[Material, int, int], int]:
    """Return the calibration that onnxruntime.quantization.quantize_static would do for Q/DQ."""

    def work(material: Material, size: int, samples: int) -> int:
        calibrator = create_calibrator(
            material.prepared,
            list(QDQRegistry),
            augmented_model_path=str(material.prepared.with_name("augmented.onnx")),
            calibrate_method=method,
            extra_options=options,
        )
        calibrator.collect_data(
            Reader(iter(material.stored(samples).batches(material.inputs, size)))
        )
        return len(calibrator.compute_data().data)

    return work


WORKS: dict[str, Callable[[Material, int, int], int]] = {
    "plain": plain,
    "tapped": tapped,
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


def main(work: str, folder: Path, batches: int, size: int) -> None:
    """Do the work and print its cost."""
    logging.disable()  # ONNX Runtime's calibrators log every step
    material = made(RESNET, folder)
    before = memory("VmRSS")
    cpu, started = time.process_time(), time.perf_counter()
    tensors = WORKS[work](material, size, size * batches)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    cost = {
        "tensors": tensors,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": memory("VmHWM"),
        "grown_bytes": memory("VmHWM") - before,
    }
    sys.stderr.flush()
    print(json.dumps(cost))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
