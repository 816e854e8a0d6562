"""Calibration on a GPU: the kernels, collecting against plain inference, and what else changes.

    python -P -m benchmarks.gpu [FOLDER]

Prints tables and writes FOLDER/gpu-<name>.json, benchmarks/results if no folder is given.  Exit
code 1 if a limit was missed, 2 if there is no GPU.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import gpu_kernels, resnet50
from benchmarks.figures import Figure, ratio
from quantlab.collect.cuda import CUDA, OPTIONS, CudaLane
from quantlab.cuda import nvrtc
from quantlab.cuda.device import Device
from quantlab.engines.host import host, versions
from quantlab.engines.ort_session import CPU, library, session
from quantlab.errors import EngineUnavailable
from quantlab.graph import model as graph
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap, watch
from quantlab.histogram import Histogram, coarsen, from_array, merge
from quantlab.records import TensorSpec

BATCH = 32
BATCHES = 40
"""Batches a turn; eight different ones in turn."""

TURNS = 9
LIMIT = 1.15
RESULTS = Path(__file__).resolve().parent / "results"
SMALL = Path(__file__).resolve().parents[1] / "examples" / "fashion_mnist" / "resnet.onnx"


class Network:
    """A model made ready: prepared, tapped where Q/DQ would stand, and some images for it."""

    def __init__(self, source: Path, folder: Path, images: NDArray[np.float32]) -> None:
        model = prepare(graph.load(source)).model
        self.prepared, self.tapped = folder / "prepared.onnx", folder / "tapped.onnx"
        self.tensors = tuple(dict.fromkeys(place(model, "tensorrt").tensors))
        self.inputs: tuple[TensorSpec, ...] = graph.inputs(model)
        self.outputs = [str(value.name) for value in model.graph.outputs]
        self.images = images
        graph.save(model, self.prepared)
        watched, _ = watch(tap(model, self.tensors), self.taps, "Size")
        graph.save(watched, self.tapped)

    @property
    def taps(self) -> list[str]:
        """Return the tensors that are not inputs."""
        return [name for name in self.tensors if name != self.inputs[0].name]

    def fed(self, rows: slice) -> dict[str, NDArray[np.float32]]:
        """Return the input of these images."""
        return {self.inputs[0].name: self.images[rows]}


def collecting(net: Network) -> list[Figure]:
    """Return wall time of collecting over that of plain inference of the same batches.

    Plain inference is ``session.run`` with the lane's options; with cuDNN's algorithms found by
    trying, which is the provider's default; and the lane itself, counting the output alone, which
    uploads ahead as collecting does.
    """
    rows = [slice(i * BATCH, (i + 1) * BATCH) for i in range(len(net.images) // BATCH)]
    stored = [net.fed(rows[i % len(rows)]) for i in range(BATCHES)]
    samples = np.arange(BATCH)
    plain = session(net.prepared, providers=[(CUDA, OPTIONS)])
    tried = session(net.prepared, providers=[(CUDA, {"use_tf32": OPTIONS["use_tf32"]})])
    lane = CudaLane(net.tapped, net.tensors, net.inputs)
    bare = CudaLane(net.prepared, net.outputs, net.inputs)

    def infer(opened: Any) -> None:
        for arrays in stored:
            opened.run(None, arrays)

    def collect(lane: CudaLane) -> None:
        for arrays in stored:
            lane.run(arrays, samples)
        lane.take()

    def collect_waiting() -> None:
        for arrays in stored:
            lane.run(arrays, samples)()
        lane.take()

    times = timed(
        {
            "plain inference": lambda: infer(plain),
            "plain inference, algorithms found by trying": lambda: infer(tried),
            "inference by the lane": lambda: collect(bare),
            "collecting": lambda: collect(lane),
            "collecting, each batch waited for": collect_waiting,
        }
    )
    what = f"ResNet-50, batch {BATCH}, {len(net.tensors)} tensors"
    how = f"{BATCHES} batches; median of {TURNS} turns after a warm-up"
    found = [_milliseconds(f"{what}: {name}", seconds, how) for name, seconds in times.items()]
    how = f"{how}; ratio of medians, spread that of the pairs"
    for over, under, most in (
        ("collecting", "plain inference", LIMIT),
        ("collecting", "inference by the lane", LIMIT),
        ("collecting", "plain inference, algorithms found by trying", None),
        ("collecting, each batch waited for", "plain inference", None),
    ):
        value, low, high = ratio(times[over], times[under])
        name = f"{what}: {over} / {under}"
        found.append(Figure(name, value, "x", low, high, how, at_most=most))
    return found


def timed(works: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Return the wall seconds of each work, run in turns after one turn that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TURNS + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _milliseconds(name: str, seconds: Sequence[float], how: str) -> Figure:
    each = [1e3 * value / BATCHES for value in seconds]
    return Figure(name, statistics.median(each), "ms a batch", min(each), max(each), how)


def differences(name: str, net: Network) -> list[str]:
    """Return in words how activations differ between devices, batch sizes and repeated runs."""
    lines = []
    here = {size: counted(net, size) for size in (1, 8, BATCH, 64)}
    for size, found in here.items():
        if size != BATCH:
            lines.append(f"{name}, GPU, batch {size} against {BATCH}: {moved(found, here[BATCH])}")
    again = moved(counted(net, BATCH), here[BATCH])
    lines.append(f"{name}, GPU, a second session against the first: {again}")
    rows = slice(0, BATCH)
    opened = session(net.tapped, providers=CPU)
    cpu = dict(zip(net.taps, opened.run(net.taps, net.fed(rows)), strict=True))
    on_gpu = session(net.tapped, providers=[(CUDA, OPTIONS)])
    gpu = dict(zip(net.taps, on_gpu.run(net.taps, net.fed(rows)), strict=True))
    there = {key: from_array(key, value) for key, value in cpu.items()}
    back = {key: from_array(key, value) for key, value in gpu.items()}
    largest = max(
        float(np.abs(cpu[key] - gpu[key]).max() / np.abs(cpu[key]).max()) for key in net.taps
    )
    lines.append(
        f"{name}, GPU against CPU, batch {BATCH}: {moved(back, there)}; "
        f"largest difference of an element {largest:.2g} of its tensor's largest magnitude"
    )
    return lines


def counted(net: Network, size: int) -> dict[str, Histogram]:
    """Return the histograms of the first 64 images in batches of ``size``, from a new session."""
    lane = CudaLane(net.tapped, net.tensors, net.inputs)
    for start in range(0, 64, size):
        lane.run(net.fed(slice(start, start + size)), np.arange(start, start + size))
    return lane.take()


def moved(one: dict[str, Histogram], other: dict[str, Histogram]) -> str:
    """Return how many histograms differ, and by how much."""
    shares, bins, ranges = [], [], []
    for name, left in one.items():
        right = other[name]
        exponent = max(left.exponent, right.exponent)
        counts = [coarsen(h.counts, exponent - h.exponent) for h in (left, right)]
        shares.append(float(np.abs(counts[0] - counts[1]).sum()) / 2 / left.total)
        used = (counts[0] > 0) | (counts[1] > 0)
        bins.append(float((counts[0] != counts[1])[used].mean()))
        ranges.append(abs(left.amax - right.amax) / right.amax)
    same = sum(one[name] == other[name] for name in one)
    if same == len(one):
        return f"all {same} histograms equal"
    return (
        f"{same} of {len(one)} histograms equal; of the others' elements at most "
        f"{max(shares):.2g} are in another bin, at most {max(bins):.2g} of the bins differ, and "
        f"the largest magnitude by at most {max(ranges):.2g}"
    )


def checked(net: Network) -> str:
    """Compare the lane's histograms with those of its activations brought back."""
    lane = CudaLane(net.tapped, net.tensors, net.inputs)
    opened = session(net.tapped, providers=[(CUDA, OPTIONS)], tapped=True)
    parts: dict[str, list[Histogram]] = {name: [] for name in net.tensors}
    for start in (0, BATCH):
        arrays = net.fed(slice(start, start + BATCH))
        lane.run(arrays, np.arange(start, start + BATCH))
        found = dict(zip(net.taps, opened.run(net.taps, arrays), strict=True)) | arrays
        for name in net.tensors:
            parts[name].append(from_array(name, found[name], start))
    taken = lane.take()
    same = sum(taken[name] == merge(parts[name]) for name in net.tensors)
    return f"{same} of {len(parts)} histograms equal those of the activations brought back"


def facts(device: Device) -> dict[str, Any]:
    """Return the machine, the GPU and the versions."""
    machine = host()
    with device.current():
        memory = device.cuda.mem_get_info()[1]
    return {
        "gpu": device.name,
        "gpu_memory_bytes": memory,
        "compute_capability": device.architecture / 10,
        "multiprocessors": device.multiprocessors,
        "cuda_driver": device.cuda.get_driver_version(),
        "driver": _driver(),
        "nvrtc": nvrtc.version(),
        "host": {key: machine[key] for key in ("cpu", "usable_cores", "memory_bytes", "python")},
        "versions": versions() | {"onnxruntime": library().__version__},
    }


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    text = path.read_text() if path.exists() else ""
    words = [word for word in text.split() if word[:1].isdigit() and "." in word]
    return words[0] if words else "unknown"


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write; return the exit code."""
    try:
        device = Device()
    except EngineUnavailable as error:
        print(error, file=sys.stderr)
        return 2
    known = facts(device)
    for key in ("gpu", "driver", "cuda_driver", "nvrtc", "versions"):
        print(f"{key}: {known[key]}")
    found: list[Figure] = []
    words: list[str] = []
    show(found, gpu_kernels.figures(device))
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        images = rng.standard_normal((8 * BATCH, *resnet50.IMAGE), np.float32)
        large = Network(resnet50.write(Path(first) / "model.onnx"), Path(first), images)
        small = Network(SMALL, Path(second), rng.random((64, 1, 28, 28), np.float32))
        show(found, collecting(large))
        for name, net in (("ResNet-50", large), ("Fashion-MNIST ResNet", small)):
            words.append(f"{name}: {checked(net)}")
            words += differences(name, net)
    print("\n".join(words))
    folder = Path(arguments[0]) if arguments else RESULTS
    path = folder / f"gpu-{slug(device.name)}.json"
    figures = [asdict(figure) | {"met": figure.met} for figure in found]
    content = known | {"figures": figures, "activations": words}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    missed = [figure.name for figure in found if figure.met is False]
    for name in missed:
        print(f"MISSED {name}")
    return 1 if missed else 0


def show(known: list[Figure], new: Sequence[Figure]) -> None:
    """Print new figures and keep them."""
    known.extend(new)
    for figure in new:
        met = {True: "met", False: "MISSED", None: ""}[figure.met]
        spread = f"{figure.low:.4g} to {figure.high:.4g}"
        line = f"{figure.name}: {figure.value:.4g} {figure.unit} ({spread}) {limit(figure)} {met}"
        print(line.rstrip())
    sys.stdout.flush()


def limit(figure: Figure) -> str:
    """Return the figure's limit in words."""
    if figure.at_least is not None:
        return f"at least {figure.at_least:g}"
    return "" if figure.at_most is None else f"at most {figure.at_most:g}"


def slug(name: str) -> str:
    """Return a GPU's name as part of a file name."""
    return name.lower().removeprefix("nvidia ").replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
