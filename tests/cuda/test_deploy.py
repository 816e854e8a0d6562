"""The GPU runner on a real GPU: memory, copies, times, graphs; our own kernels and ONNX Runtime."""

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from benchmarks.kernel_engine import COLUMNS, KernelExecutor, answer
from quantlab.cuda.device import Device
from quantlab.engines.base import Array, DeviceRunner, Runner
from quantlab.engines.device import GpuRunner
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.graph import model as graph
from quantlab.graph.prepare import prepare
from quantlab.graph.to_fp16 import to_fp16
from quantlab.performance import Schedule, measure
from quantlab.records import Precision
from tests.engines.models_for_engines import expected, odd_inputs, odd_net, saved

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

EXAMPLES = Path(__file__).parents[2] / "examples" / "fashion_mnist"
IMAGES = np.random.default_rng(0).normal(size=(64, 1, 28, 28)).astype(np.float32)
INFERENCES = 10_000

Open = Callable[..., Runner]


def rows(number: int, seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).normal(size=(number, COLUMNS)).astype(np.float32)}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("graph_asked", [False, True])
def test_results_are_right_at_every_shape_and_in_every_turn(
    device: Device, *, graph_asked: bool
) -> None:
    with GpuRunner(device, KernelExecutor(device, repeats=3), cuda_graph=graph_asked) as runner:
        assert isinstance(runner, DeviceRunner)
        for seed, number in enumerate((1, 7, 7, 7, 7, 64, 1, 1, 1, 1, 7)):
            inputs = rows(number, seed)
            found = runner.run(inputs)["y"]
            np.testing.assert_array_equal(found, answer(inputs))
            if seed % 4 == 3:
                runner.queries(inputs, least=10, seconds=0, transfers=True)
        assert runner.cuda_graph is graph_asked
        assert runner.notes == ()
        assert re.fullmatch(r"[\da-fA-F]{4,8}:[\da-fA-F]{2}:[\da-fA-F]{2}\.\d", runner.bus)


def test_times_are_those_of_the_work(device: Device) -> None:
    """A kernel of a known time, and copies of 8 MiB, which run beside it."""
    with GpuRunner(device, KernelExecutor(device, spin=2_000_000)) as runner:
        inputs = rows(2048)
        found = runner.queries(inputs, least=50, seconds=0.1, transfers=True)
        bare = runner.queries(inputs, least=50, seconds=0.1, transfers=False)
    assert 2.0 <= np.median(found.compute) < 2.2
    assert 2.0 <= np.median(bare.compute) < 2.2
    assert (found.h2d > 0.05).all()
    assert (found.d2h > 0.05).all()
    assert found.h2d.max() < 2
    assert not bare.h2d.any()
    assert np.median(found.enqueue) < 0.2
    latency = (found.h2d + found.compute + found.d2h).sum() / 1e3
    assert found.seconds < 0.95 * latency  # neighbours overlap
    assert found.seconds > 0.99 * found.compute.sum() / 1e3


@pytest.mark.parametrize("graph_asked", [False, True])
def test_many_inferences_leave_no_memory_behind(device: Device, *, graph_asked: bool) -> None:
    process = psutil.Process()
    inputs, others = rows(16), rows(32)
    with device.current():
        empty = device.cuda.mem_get_info()[0]
    with GpuRunner(device, KernelExecutor(device), cuda_graph=graph_asked) as runner:
        for _ in range(200):
            runner.run(inputs)
            runner.run(others)
        gc.collect()
        with device.current():
            free = device.cuda.mem_get_info()[0]
        resident = process.memory_info().rss
        for number in range(INFERENCES):
            runner.run(others if number % 100 < 3 else inputs)
        with device.current():
            assert device.cuda.mem_get_info()[0] >= free
        assert process.memory_info().rss - resident < 4 << 20
    with device.current():
        # The driver keeps what it took for its own, such as the first graph's memory.
        assert empty - device.cuda.mem_get_info()[0] <= 8 << 20


def test_what_cannot_be_captured_is_said_and_runs(device: Device) -> None:
    with GpuRunner(device, KernelExecutor(device, synchronizes=True), cuda_graph=True) as runner:
        for seed in range(5):
            inputs = rows(3, seed)
            np.testing.assert_array_equal(runner.run(inputs)["y"], answer(inputs))
        assert not runner.cuda_graph
        assert "no CUDA graph could be captured" in runner.describe().notes[-1]


def test_more_than_the_gpu_has_is_said_and_less_still_runs(device: Device) -> None:
    with device.current():
        taken = device.cuda.mem_alloc(device.cuda.mem_get_info()[0] - (64 << 20))
    try:
        with GpuRunner(device, KernelExecutor(device)) as runner:
            with pytest.raises(EngineError, match=r"out of memory.*x \[16384, 1024\]: run a small"):
                runner.run(rows(16384))
            np.testing.assert_array_equal(runner.run(rows(4))["y"], answer(rows(4)))
    finally:
        with device.current():
            taken.free()


def test_two_runners_take_turns(device: Device, stack: ExitStack) -> None:
    runners = [
        stack.enter_context(GpuRunner(made, KernelExecutor(made), cuda_graph=True))
        for made in (device, Device())
    ]
    for seed in range(8):
        for runner in runners:
            inputs = rows(5, seed)
            np.testing.assert_array_equal(runner.run(inputs)["y"], answer(inputs))


# ONNX Runtime's CUDA provider, through the Engine protocol.


@pytest.fixture
def opened(tmp_path: Path, stack: ExitStack) -> Open:
    (tmp_path / "engines").mkdir()

    def build_and_open(
        model: onnx.ModelProto | Path, precision: Precision = "fp32", **parameters: bool
    ) -> Runner:
        engine = OnnxRuntime(provider="cuda", **parameters)
        try:
            engine.available()
        except EngineUnavailable as error:
            pytest.skip(str(error))
        path = model if isinstance(model, Path) else saved(model, tmp_path)
        build = engine.build(path, precision, tmp_path / "engines")
        context: AbstractContextManager[Runner] = engine.open(build, tmp_path)
        return stack.enter_context(context)

    return build_and_open


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
@pytest.mark.parametrize("graph_asked", [False, True])
def test_the_shipped_networks_give_what_the_cpu_gives(
    opened: Open, tmp_path: Path, name: str, *, graph_asked: bool
) -> None:
    model = prepare(graph.load(EXAMPLES / f"{name}.onnx")).model
    graph.save(model, tmp_path / "prepared.onnx")
    graph.save(to_fp16(model).model, tmp_path / "fp16.onnx")
    cpu = OnnxRuntime()
    build = cpu.build(tmp_path / "prepared.onnx", "fp32", tmp_path / "engines")
    with cpu.open(build, tmp_path) as runner:
        wanted = {n: runner.run({"image": IMAGES[:n]})["logits"] for n in (1, 8, 64)}
    for precision, file, tolerance in (
        ("fp32", "prepared.onnx", 1e-3),
        ("fp16", "fp16.onnx", 5e-2),  # FP16 keeps 11 bits, which some 10 layers lose a few of
    ):
        runner = opened(tmp_path / file, precision, cuda_graph=graph_asked)
        for number in (8, 8, 8, 8, 1, 64, 64, 64, 8):
            found = runner.run({"image": IMAGES[:number]})["logits"]
            np.testing.assert_allclose(
                found.astype(np.float64), wanted[number].astype(np.float64), atol=tolerance
            )
        moved = runner.run({"image": IMAGES[8:16]})["logits"]
        np.testing.assert_allclose(
            moved.astype(np.float64), wanted[64][8:16].astype(np.float64), atol=tolerance
        )
        info = runner.describe()
        assert info.layers
        assert isinstance(runner, DeviceRunner)
        assert info.notes[-1:] == runner.notes or not runner.notes


def test_inputs_and_outputs_of_every_kind(opened: Open) -> None:
    runner = opened(odd_net())
    for batch in (3, 1, 3, 5):
        inputs = odd_inputs(batch)
        wanted = expected(odd_net(), inputs)
        found = runner.run(inputs)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(
                found[name].astype(np.float64), value.astype(np.float64), rtol=1e-4
            )
    with pytest.raises(EngineError, match="could not run"):
        runner.run(odd_inputs(3) | {"ids": np.arange(2)})
    assert runner.run(odd_inputs(2))["sum"].shape == (2, 4)


def test_an_engine_is_measured_by_the_gpus_clock(opened: Open) -> None:
    runner = opened(EXAMPLES / "resnet.onnx")
    schedule = Schedule((8,), seconds=0.5, rounds=3)
    (found,) = measure({"fp32": runner}, lambda n: {"image": IMAGES[:n]}, schedule=schedule)["fp32"]
    assert found.device is not None
    assert 0 < found.device.compute_ms.p50 <= found.device.compute_ms.p99
    assert found.p50_ms >= found.device.compute_ms.p50
    assert found.device.throughput_without_transfers > 0
    if found.device.clocks_mhz is not None:
        assert 0 < found.device.clocks_mhz[0] <= found.device.clocks_mhz[1]


def test_a_plan_of_tensorrt_rtx_runs_or_is_refused_in_words(
    tmp_path: Path, device: Device, stack: ExitStack
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from quantlab.engines.base import BuildContext, ShapeRange
    from quantlab.engines.tensorrt import TensorRTRTX
    from quantlab.engines.trt import plan as plans
    from quantlab.engines.trt import runner as runner_module
    from quantlab.engines.trt.library import load
    from quantlab.engines.trt.runner import Settings
    from quantlab.engines.trt.targets import covers

    (tmp_path / "engines").mkdir()
    engine = TensorRTRTX()
    shapes = {"image": ShapeRange((1, 1, 28, 28), (8, 1, 28, 28), (64, 1, 28, 28))}
    context = BuildContext(shapes=shapes)
    build = engine.build(EXAMPLES / "resnet.onnx", "fp32", tmp_path / "engines", context)
    capability = divmod(device.architecture, 10)
    if covers((), capability):
        runner = stack.enter_context(engine.open(build, tmp_path))
        assert runner.run({"image": IMAGES})["logits"].shape == (64, 10)
        return
    says = rf"{device.name} with compute capability {capability[0]}\.{capability[1]} is not among"
    with pytest.raises(EngineError, match=says):
        stack.enter_context(engine.open(build, tmp_path))
    path = tmp_path / build.path
    made = plans.Plan(plans.read(path), path.read_bytes(), ())  # as if the manifest said nothing
    says = (
        rf"fp32\.plan cannot run here: {device.name} with compute capability .* is not a GPU that"
    )
    with pytest.raises(EngineError, match=says):
        stack.enter_context(runner_module.opened(load("tensorrt-rtx"), made, Settings(path.name)))
