"""Deploying and measuring on a GPU: engines, their accuracy, their speed, CUDA graphs, leaks.

    python -P -m benchmarks.deploy [FOLDER]

Prints what it finds and writes FOLDER/deploy-<name>.json, benchmarks/results if no folder is given.
Exit code 1 if a limit was missed, 2 if there is no GPU.  Takes a few minutes.

Engines are ONNX Runtime's on CUDA, FP32 and FP16, through the same Engine protocol and GPU runner
that TensorRT's plans use; the full TensorRT is nowhere in it.  TensorRT-RTX builds a plan on the
spot, if it is installed, and the GPU is asked to run it.
"""

import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks import resnet50
from benchmarks.figures import Figure
from benchmarks.gpu import RESULTS, facts, show, slug
from benchmarks.kernel_engine import KernelExecutor, answer
from quantlab.cuda.device import Device
from quantlab.datasets.fashion_mnist import read_idx
from quantlab.engines.base import BuildContext, DeviceRunner, Runner, ShapeRange
from quantlab.engines.device import GpuRunner
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.graph import model as graph
from quantlab.graph.prepare import prepare
from quantlab.graph.to_fp16 import to_fp16
from quantlab.measured import Performance
from quantlab.performance import Schedule, measure
from quantlab.records import Precision

DATA = Path(__file__).resolve().parents[1] / "examples" / "fashion_mnist"
MEAN, STD = 0.2860, 0.3530
BATCH = 100
SECONDS = 2.0
ROUNDS = 10
INFERENCES = 10_000
WARM = 300

ERRORS: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference from FP32 on the CPU, of the largest magnitude; FP32 sums in another order."""

DROP = 0.3
"""Percentage points of top-1 that FP16 may lose."""

LEAK = 4 << 20
"""Bytes of host memory that may come and go in 10,000 inferences."""


@dataclass(frozen=True)
class Network:
    """A network made ready: its files by precision, its input's name, and images for it."""

    name: str
    files: Mapping[Precision, Path]
    input: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    def fed(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return the input of these images; the first ones again where there are fewer."""
        return {self.input: self.images[np.arange(start, stop) % len(self.images)]}


def network(
    name: str,
    source: Path,
    folder: Path,
    images: NDArray[np.float32],
    labels: NDArray[np.int64] | None = None,
) -> Network:
    """Prepare a model and make its FP16 graph."""
    model = prepare(graph.load(source)).model
    files: dict[Precision, Path] = {
        "fp32": folder / f"{name}.onnx",
        "fp16": folder / f"{name}-fp16.onnx",
    }
    graph.save(model, files["fp32"])
    graph.save(to_fp16(model).model, files["fp16"])
    (spec,) = graph.inputs(model)
    return Network(name, files, spec.name, images, labels)


def fashion() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 10,000 test images as the shipped networks take them, and their labels."""
    pixels = np.stack(list(read_idx(DATA / "t10k-images-idx3-ubyte.gz", axes=3).rows(0, 10_000)))
    labels = list(read_idx(DATA / "t10k-labels-idx1-ubyte.gz", axes=1).rows(0, 10_000))
    images = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return images[:, None], np.array([int(label) for label in labels])


@contextmanager
def opened(net: Network, precision: Precision, engine: OnnxRuntime) -> Iterator[Runner]:
    """Build an engine into a folder of its own and open it."""
    with TemporaryDirectory() as root:
        folder = Path(root) / "engines"
        folder.mkdir()
        build = engine.build(net.files[precision], precision, folder)
        with engine.open(build, Path(root)) as runner:
            yield runner


def outputs(net: Network, runner: Runner, count: int) -> NDArray[np.float64]:
    """Return the first output for the first ``count`` images."""
    parts = [
        next(iter(runner.run(net.fed(start, min(start + BATCH, count))).values()))
        for start in range(0, count, BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def compared(net: Network, count: int) -> list[Figure]:
    """Return how far FP32 and FP16 on the GPU are from FP32 on the CPU, and their accuracy."""
    with opened(net, "fp32", OnnxRuntime()) as runner:
        cpu = outputs(net, runner, count)
    size, found = float(np.abs(cpu).max()), []
    hits: dict[str, NDArray[np.bool_]] = {}
    if net.labels is not None:
        hits["cpu"] = cpu.argmax(axis=1) == net.labels[:count]
    for precision, limit in ERRORS.items():
        with opened(net, precision, OnnxRuntime(provider="cuda")) as runner:
            gpu = outputs(net, runner, count)
        error = float(np.abs(gpu - cpu).max()) / size
        how = f"{count} images; largest difference of an output over the largest output"
        name = f"{net.name}: {precision} on the GPU against FP32 on the CPU"
        found.append(Figure(name, error, "x", error, error, how, at_most=limit))
        if net.labels is not None:
            hits[precision] = gpu.argmax(axis=1) == net.labels[:count]
            found += accuracy(net.name, precision, hits)
    return found


def accuracy(name: str, precision: str, hits: Mapping[str, NDArray[np.bool_]]) -> list[Figure]:
    """Return top-1 and how it differs from the CPU's, paired by image."""
    right, before = hits[precision], hits["cpu"]
    top1, drop = 100 * float(right.mean()), 100 * float(before.mean() - right.mean())
    how = f"{len(right)} test images"
    most = DROP if precision == "fp16" else 0.05
    return [
        Figure(f"{name}: top-1, {precision} on the GPU", top1, "%", top1, top1, how),
        Figure(
            f"{name}: top-1 lost to FP32 on the CPU, {precision} on the GPU",
            drop,
            "points",
            drop,
            drop,
            f"{how}; {int((right != before).sum())} are judged otherwise",
            at_most=most,
        ),
    ]


def speeds(net: Network, batches: tuple[int, ...]) -> dict[str, dict[Precision, Any]]:
    """Measure FP32 and FP16 side by side, inferences queued one by one and as CUDA graphs."""
    schedule = Schedule(batches, seconds=SECONDS, rounds=ROUNDS)
    found: dict[str, dict[Precision, Any]] = {}
    for title, cuda_graph in (("queued one by one", False), ("as a CUDA graph", True)):
        engine = OnnxRuntime(provider="cuda", cuda_graph=cuda_graph)
        with opened(net, "fp32", engine) as fp32, opened(net, "fp16", engine) as fp16:
            results = measure(
                {"fp32": fp32, "fp16": fp16}, lambda n: net.fed(0, n), schedule=schedule
            )
            for runner in (fp32, fp16):
                if isinstance(runner, DeviceRunner) and runner.notes:
                    print(f"{net.name}, {title}: {runner.notes[0]}")
        for precision, performances in results.items():
            for performance in performances:
                print(f"{net.name}, {precision}, {title}: {told(performance)}")
        found[title] = {p: [asdict(each) for each in results[p]] for p in results}
    sys.stdout.flush()
    return found


def told(found: Performance) -> str:
    """Return a measurement in a line."""
    assert found.device is not None
    device = found.device
    speedup = "" if found.speedup is None else f", {found.speedup.value:.2f} x FP32"
    text = (
        f"batch {found.batch}: GPU {device.compute_ms.p50:.4f} ms (p99 {device.compute_ms.p99:.4f})"
        f", H2D {device.h2d_ms.p50:.4f}, D2H {device.d2h_ms.p50:.4f}"
        f", enqueue {device.enqueue_ms.p50:.4f}; {found.throughput:.0f} images/s"
        f" ({found.throughput_low:.0f} to {found.throughput_high:.0f}){speedup}, without copies "
        f"{device.throughput_without_transfers:.0f}; graph {device.cuda_graph}"
    )
    if device.clocks_mhz and device.power_watts:
        low, high = device.clocks_mhz
        text += f"; {low} to {high} MHz, {device.power_watts[0]:.0f} to "
        text += f"{device.power_watts[1]:.0f} W"
    return text + "".join(f"\n    warning: {warning}" for warning in device.warnings)


def graphs(device: Device) -> list[Figure]:
    """Return what a CUDA graph of 50 small kernels gains, after checking its results."""
    times = {}
    for cuda_graph in (False, True):
        with GpuRunner(device, KernelExecutor(device, repeats=50), cuda_graph=cuda_graph) as runner:
            for seed in range(6):
                x = np.random.default_rng(seed).standard_normal((32, 1024), np.float32)
                if not np.array_equal(runner.run({"x": x})["y"], answer({"x": x})):
                    raise RuntimeError(f"wrong results, CUDA graph {cuda_graph}")
            times[cuda_graph] = runner.queries({"x": x}, least=500, seconds=1, transfers=True)
            if runner.cuda_graph is not cuda_graph:
                raise RuntimeError(f"no graph: {runner.notes}")
    found = []
    for cuda_graph, queries in times.items():
        name = "50 kernels " + ("as a CUDA graph" if cuda_graph else "launched one by one")
        for what, ms in (("GPU", queries.compute), ("enqueue", queries.enqueue)):
            low, middle, high = np.percentile(ms, [1, 50, 99])
            how = f"median, 1st and 99th percentile of {len(ms)} queries; results were checked"
            found.append(Figure(f"{name}: {what}", middle, "ms", low, high, how))
    gain = float(np.median(times[True].enqueue) / np.median(times[False].enqueue))
    how = "ratio of medians"
    name = "enqueue time of a CUDA graph over that of its kernels"
    found.append(Figure(name, gain, "x", gain, gain, how, at_most=0.5))
    return found


def leaks(net: Network, device: Device) -> list[Figure]:
    """Return the memory that 10,000 inferences left behind, on the GPU and on the host."""
    process, found = psutil.Process(), []
    for cuda_graph in (False, True):
        engine = OnnxRuntime(provider="cuda", cuda_graph=cuda_graph)
        with opened(net, "fp16", engine) as runner:
            inputs = net.fed(0, 8)
            for _ in range(WARM):
                runner.run(inputs)
            gc.collect()
            here, there = process.memory_info().rss, free(device)
            started = time.perf_counter()
            for _ in range(INFERENCES):
                runner.run(inputs)
            seconds = time.perf_counter() - started
            grown, taken = process.memory_info().rss - here, there - free(device)
        how = f"{INFERENCES} inferences of batch 8 in {seconds:.1f} s, after {WARM}"
        title = f"{net.name}, CUDA graph {'on' if cuda_graph else 'off'}: memory left behind"
        found.append(Figure(f"{title} on the GPU", taken, "bytes", taken, taken, how, at_most=0))
        found.append(Figure(f"{title} here", grown, "bytes", grown, grown, how, at_most=LEAK))
    return found


def free(device: Device) -> int:
    """Return the GPU's free memory in bytes."""
    with device.current():
        return int(device.cuda.mem_get_info()[0])


def plan(device: Device) -> list[str]:
    """Build a plan with TensorRT-RTX and open it here; return what comes of it.

    What its manifest says is looked at first; then TensorRT-RTX itself is asked.
    """
    from quantlab.engines.tensorrt import TensorRTRTX

    engine = TensorRTRTX()
    try:
        version = engine.available()
    except EngineUnavailable as error:
        return [f"TensorRT-RTX: not tried: {error}"]
    shape = (1, 28, 28)
    context = BuildContext(shapes={"image": ShapeRange((1, *shape), (8, *shape), (32, *shape))})
    with TemporaryDirectory() as root:
        folder = Path(root) / "engines"
        folder.mkdir()
        build = engine.build(DATA / "resnet.onnx", "fp32", folder, context)
        told = [f"{version}: built a plan of {build.size_bytes} bytes"]
        try:
            with engine.open(build, Path(root)) as runner:
                runner.run({"image": np.zeros((1, *shape), np.float32)})
        except EngineError as error:
            refused = f"refused on {device.name}: {str(error).replace(root, '')}"
            return [*told, refused, asked(Path(root) / build.path)]
    return [*told, f"it runs on {device.name}"]


def asked(path: Path) -> str:
    """Return what TensorRT-RTX itself says of a plan, its manifest left aside."""
    from quantlab.engines.trt import plan as plans
    from quantlab.engines.trt import runner
    from quantlab.engines.trt.library import load

    made = plans.Plan(plans.read(path), path.read_bytes(), ())
    try:
        with runner.opened(load("tensorrt-rtx"), made, runner.Settings(path.name)):
            return "TensorRT-RTX itself loads it"
    except EngineError as error:
        return f"TensorRT-RTX itself: {error}"


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write; return the exit code."""
    try:
        device = Device()
        engine = OnnxRuntime(provider="cuda").available()
    except EngineUnavailable as error:
        print(error, file=sys.stderr)
        return 2
    known = facts(device)
    for key in ("gpu", "driver", "cuda_driver", "versions"):
        print(f"{key}: {known[key]}")
    print(f"engine: {engine}", flush=True)
    found: list[Figure] = []
    measured: dict[str, Any] = {}
    refusal = plan(device)
    print("\n".join(refusal), flush=True)
    show(found, graphs(device))
    images, labels = fashion()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        nets = [
            network(name, DATA / f"{name}.onnx", folder, images, labels)
            for name in ("resnet", "mobilenet")
        ]
        for net in nets:
            show(found, compared(net, len(images)))
            measured[net.name] = speeds(net, (1, 32))
        show(found, leaks(nets[0], device))
        random = np.random.default_rng(0).standard_normal((32, *resnet50.IMAGE), np.float32)
        large = network("ResNet-50", resnet50.write(folder / "large.onnx"), folder, random)
        show(found, compared(large, len(random)))
        measured[large.name] = speeds(large, (32,))
    figures = [asdict(figure) | {"met": figure.met} for figure in found]
    content = known | {
        "figures": figures,
        "performance": measured,
        "tensorrt_rtx": refusal,
        "schedule": {"seconds": SECONDS, "rounds": ROUNDS},
    }
    path = (Path(arguments[0]) if arguments else RESULTS) / f"deploy-{slug(device.name)}.json"
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    missed = [figure.name for figure in found if figure.met is False]
    for name in missed:
        print(f"MISSED {name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
