"""Plans are loaded and run as TensorRT's documentation says, on a stand-in for its runtime."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from quantlab.cuda.device import Device
from quantlab.engines.base import ShapeRange
from quantlab.engines.device import GpuRunner
from quantlab.engines.trt import log, plan, runner
from quantlab.engines.trt.api_run import Module
from quantlab.engines.trt.plan import Manifest, Options, Plan
from quantlab.engines.trt.runner import Settings
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.files import sha256
from quantlab.records import Build
from tests.cuda.simulated import Cuda, install
from tests.engines.trt.stand_in import World, library, values


@dataclass
class Bench:
    """A GPU, a TensorRT, and what opens plans with them."""

    world: World
    device: Device
    stack: ExitStack
    rtx: bool = False

    def engine(
        self, settings: Settings | None = None, options: Options | None = None
    ) -> runner.Opened:
        made = Plan(manifest(options), b"plan", ())
        opened = runner.opened(
            library(self.world, rtx=self.rtx), made, settings or Settings("int8.plan")
        )
        return self.stack.enter_context(opened)

    def runner(self, settings: Settings | None = None) -> GpuRunner:
        return self.stack.enter_context(self.engine(settings).runner())


TYPED = Options(strongly_typed=True)
STRIPPED = replace(TYPED, stripped=True)


def manifest(options: Options | None = None) -> Manifest:
    return Manifest(
        quantlab="0",
        created="",
        package="tensorrt",
        version="10.3.0.26",
        gpu="Simulated GPU",
        compute_capability=(9, 0),
        precision="int8",
        quantization="explicit",
        model="int8.onnx",
        model_sha256=hashlib.sha256(b"model").hexdigest(),
        profiles=({"x": ShapeRange((1, 3), (2, 3), (4, 3))},),
        options=options or TYPED,
    )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cuda = Cuda()
    device = install(monkeypatch, cuda)
    with ExitStack() as stack:
        yield Bench(World(cuda), device, stack)
    assert cuda.used() == 0
    assert cuda.graphs == {}


def test_a_plan_runs_at_every_shape_of_its_profile(bench: Bench) -> None:
    opened = bench.runner()
    for number in (1, 4, 2, 2, 3):
        x = values(number, number)
        found = opened.run({"x": x})
        assert list(found) == ["y"]
        np.testing.assert_array_equal(found["y"], 2 * x)
    assert bench.world.calls == ["host code allowed: False", "context"]
    # Everything was as large as the profile's largest shape from the start.
    assert bench.world.cuda.used() == 2 * 2 * 256
    queries = opened.queries({"x": values(4)}, least=5, seconds=0, transfers=True)
    assert len(queries.compute) == 5


def test_the_first_profile_that_covers_a_shape_is_used(bench: Bench) -> None:
    bench.world.profiles = [((1, 3), (1, 3), (1, 3)), ((1, 3), (8, 3), (32, 3))]
    opened = bench.runner()
    for number in (1, 7, 7, 32, 1, 8):
        x = values(number)
        np.testing.assert_array_equal(opened.run({"x": x})["y"], 2 * x)
    chosen = [call for call in bench.world.calls if call.startswith("profile")]
    assert chosen == ["profile 0", "profile 1", "profile 0", "profile 1"]


def test_a_shape_that_no_profile_covers_is_named_with_the_profiles(bench: Bench) -> None:
    bench.world.profiles = [((1, 3), (2, 3), (4, 3)), ((8, 3), (8, 3), (8, 3))]
    opened = bench.runner()
    says = (
        r"int8\.plan: input 'x' has shape \[5, 3\], which no optimization profile covers: "
        r"profile 0 takes x \[1, 3\] to \[4, 3\]; profile 1 takes x \[8, 3\] to \[8, 3\]; "
        r"run what a profile covers, or build again with 'profiles:' that cover it"
    )
    with pytest.raises(EngineError, match=says):
        opened.run({"x": values(5)})
    assert opened.run({"x": values(8)})["y"].shape == (8, 3)
    with pytest.raises(EngineError, match=r"expected x float32\[\?, 3\], got float32\[2, 4\]"):
        opened.run({"x": np.zeros((2, 4), np.float32)})


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_output_may_have_a_shape_that_depends_on_the_data(
    bench: Bench, *, asynchronous: bool
) -> None:
    bench.world.picky, bench.world.asynchronous = True, asynchronous
    bench.world.profiles = [((1, 3), (2, 3), (400, 3))]
    opened = bench.runner(Settings("int8.plan", cuda_graph=True))
    for number, seed in ((4, 0), (1, 1), (300, 2), (3, 3), (300, 4)):
        x = values(number, seed)
        found = opened.run({"x": x})
        np.testing.assert_array_equal(found["y"], 2 * x)
        np.testing.assert_array_equal(found["rows"], np.flatnonzero(x[:, 0] > 0))
    empty = opened.run({"x": -np.abs(values(2))})
    assert empty["rows"].shape == (0,)
    opened.queries({"x": values(4)}, least=3, seconds=0, transfers=True)
    assert opened.run({"x": values(4)})["rows"].dtype == np.int64
    assert not opened.cuda_graph
    assert "'rows' depends on the data" in opened.notes[0]


def test_memory_for_such_an_output_may_not_suffice(bench: Bench) -> None:
    bench.world.picky = True
    bench.world.profiles = [((1, 3), (2, 3), (400, 3))]
    opened = bench.runner()
    x = np.abs(values(2))
    opened.run({"x": x})
    bench.world.cuda.limit = 0
    with pytest.raises(EngineError, match=r"out of memory.*run a smaller batch"):
        opened.run({"x": np.abs(values(400))})
    bench.world.cuda.limit = 1 << 30
    assert opened.run({"x": x})["rows"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("shape", "int8.plan: TensorRT refuses x: Error Code 3"),
        ("infer", "int8.plan: cannot take these inputs: Error Code 3"),
        ("known", "int8.plan: TensorRT does not know the shape of x"),
        ("address", "int8.plan: TensorRT refuses x: Error Code 3"),
        ("execute", "int8.plan: could not run: Error Code 3"),
    ],
)
def test_what_tensorrt_refuses_is_said_in_its_own_words(bench: Bench, call: str, says: str) -> None:
    opened = bench.runner()
    bench.world.says = "IExecutionContext::x: Error Code 3: API Usage (In f at /a.cpp:1)"
    bench.world.refuses = {call}
    with pytest.raises(EngineError, match=re.escape(says)):
        opened.run({"x": values(2)})
    bench.world.refuses = set()
    assert opened.run({"x": values(2)})["y"].shape == (2, 3)


def test_what_cannot_be_fed_is_refused_when_the_plan_is_opened(bench: Bench) -> None:
    bench.world.location = "HOST"
    with pytest.raises(EngineError, match="'x' is a shape tensor"):
        bench.runner()
    bench.world.location, bench.world.dtype = "DEVICE", "BF16"
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0\.26: 'x' has element type BF16"):
        bench.runner()


def test_several_contexts_of_one_engine_run_side_by_side(bench: Bench) -> None:
    engine = bench.engine()
    one, two = (bench.stack.enter_context(engine.runner()) for _ in range(2))
    for seed in range(4):
        for opened, number in ((one, 2), (two, 3)):
            x = values(number, seed)
            np.testing.assert_array_equal(opened.run({"x": x})["y"], 2 * x)
    one.close()
    assert two.run({"x": values(2)})["y"].shape == (2, 3)
    assert bench.world.calls.count("context") == 2
    assert len([call for call in bench.world.calls if "host code" in call]) == 1


def test_no_memory_for_a_context_is_said(bench: Bench) -> None:
    engine = bench.engine()
    bench.world.refuses, bench.world.says = {"context"}, "Cuda Runtime (out of memory)"
    with pytest.raises(EngineError, match=r"execution context: Cuda Runtime \(out of memory\); is"):
        engine.runner().__enter__()


def test_layers_are_told_with_their_times_and_the_graph_is_replayed(bench: Bench) -> None:
    opened = bench.runner(Settings("int8.plan", cuda_graph=True))
    opened.run({"x": values(2)})
    info = opened.describe()
    assert (info.backend, info.device) == ("TensorRT 10.3.0.26", "Simulated GPU")
    assert [(layer.name, layer.ms) for layer in info.layers] == [("double", 0.5), ("tail", 0.5)]
    assert [fusion.nodes for fusion in info.fusions] == [("double", "relu")]
    assert opened.cuda_graph
    x = values(2, 5)
    np.testing.assert_array_equal(opened.run({"x": x})["y"], 2 * x)
    assert bench.world.cuda.launched >= 1


def test_layers_are_told_without_times_where_there_is_no_second_context(bench: Bench) -> None:
    opened = bench.runner()
    opened.run({"x": values(2)})
    bench.world.refuses = {"context"}
    info = opened.describe()
    assert [layer.ms for layer in info.layers] == [None, None]
    assert re.search("layers were not timed: .*execution context", info.notes[-1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("deserialize", "int8.plan: TensorRT 10.3.0.26 cannot load it: Version tag does not match"),
        ("raise", "int8.plan: TensorRT 10.3.0.26 cannot load it: out of host memory"),
    ],
)
def test_a_plan_that_tensorrt_refuses(bench: Bench, call: str, says: str) -> None:
    bench.world.refuses, bench.world.says = {call}, "Version tag does not match"
    with pytest.raises(EngineError, match=re.escape(says)):
        bench.engine()


def test_tensorrt_that_does_not_start(bench: Bench) -> None:
    bench.world.refuses, bench.world.says = {"runtime"}, "CUDA initialization failure"
    with pytest.raises(EngineUnavailable, match="does not start: CUDA initialization failure"):
        bench.engine()


def test_a_version_compatible_plan_may_run_host_code(bench: Bench) -> None:
    bench.engine(options=replace(TYPED, version_compatible=True))
    assert bench.world.calls == ["host code allowed: True"]


def test_a_plan_without_weights_gets_those_of_its_model(bench: Bench, tmp_path: Path) -> None:
    model = tmp_path / "int8.onnx"
    settings = Settings("int8.plan", model=model)
    with pytest.raises(EngineError, match=r"come from int8\.onnx, which is not there"):
        bench.engine(settings, STRIPPED)
    model.write_bytes(b"another")
    with pytest.raises(EngineError, match=r"cannot come from .*int8\.onnx, which changed since"):
        bench.engine(settings, STRIPPED)
    model.write_bytes(b"model")
    bench.engine(settings, STRIPPED)
    assert bench.world.calls[-2:] == [f"weights of {model}", "refitted"]
    for call in ("weights", "refit"):
        bench.world.refuses = {call}
        with pytest.raises(EngineError, match="cannot be taken from"):
            bench.engine(settings, STRIPPED)


@pytest.mark.parametrize(
    ("bits", "says"),
    [
        (
            2,
            "Simulated GPU with compute capability 9.0 is not a GPU that it was built for",
        ),
        (1 | 32, "another version of TensorRT-RTX; build it again with this one; it is no plan"),
        (0, "calls it invalid and does not say why"),
    ],
)
def test_tensorrt_rtx_says_beforehand_why_a_plan_will_not_run(
    bench: Bench, bits: int, says: str
) -> None:
    bench.rtx, bench.world.validity = True, ("INVALID", bits)
    with pytest.raises(EngineError, match=re.escape(says)):
        bench.engine()


def test_tensorrt_rtx_keeps_its_compiled_kernels(bench: Bench, tmp_path: Path) -> None:
    bench.rtx = True
    cache = tmp_path / "int8.runtime-cache"
    settings = Settings("int8.plan", runtime_cache=cache)

    def calls() -> list[str]:
        bench.world.calls.clear()
        bench.runner(settings).run({"x": values(2)})
        bench.stack.close()
        return [call for call in bench.world.calls if "cache" in call or "context" in call]

    assert calls() == ["configured context"]
    assert cache.read_bytes() == b"kernels"
    before = cache.stat().st_mtime_ns
    assert calls() == ["cache of 7 bytes", "configured context"]
    assert cache.stat().st_mtime_ns == before  # nothing new, nothing written
    bench.world.refuses, bench.world.compiled = {"cache"}, b"others"
    assert calls() == ["cache of 7 bytes", "configured context"]
    assert cache.read_bytes() == b"others"


def test_kernels_that_cannot_be_kept_are_no_failure(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.rtx = True
    bench.runner(Settings("int8.plan", runtime_cache=tmp_path / "nowhere" / "cache"))
    bench.stack.close()
    assert "compiled kernels were not kept: cannot write" in caplog.text


def test_a_graph_that_tensorrt_rtx_cannot_capture_is_said(bench: Bench) -> None:
    bench.rtx, bench.world.capturable = True, False
    opened = bench.runner(Settings("int8.plan", cuda_graph=True))
    for _ in range(3):
        opened.run({"x": values(2)})
    assert "cannot capture this plan at these shapes" in opened.notes[0]


def test_a_build_is_verified_before_tensorrt_sees_the_plan(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    path = tmp_path / "engines" / "int8.plan"
    plan.save(path, b"plan", manifest())
    names = ("engines/int8.plan", "engines/int8.plan.json")
    files = {name: sha256(tmp_path / name) for name in names}
    built = Build("int8", "tensorrt", "GPU", names[0], files, 4, 0.0)
    found = library(bench.world)
    opened = runner.running(found, built, tmp_path, device_id=0, cuda_graph=False)
    assert bench.stack.enter_context(opened).run({"x": values(1)})["y"].shape == (1, 3)
    for changed, says in (
        (replace(manifest(), gpu="Another GPU"), "expected Another GPU"),
        (replace(manifest(), version="10.2.0.1"), "expected tensorrt 10.2.0.1, which built it"),
    ):
        plan.save(path, b"plan", changed)
        again = replace(built, files={name: sha256(tmp_path / name) for name in names})
        with pytest.raises(EngineError, match=says):
            runner.running(found, again, tmp_path, device_id=0, cuda_graph=False).__enter__()
    path.write_bytes(b"plam")
    with pytest.raises(EngineError, match="changed since it was built"):
        runner.running(found, built, tmp_path, device_id=0, cuda_graph=False).__enter__()


def test_the_genuine_tensorrt_rtx_knows_what_is_no_plan(bench: Bench) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    module = cast(Module, import_module("tensorrt_rtx"))
    heard = log.Log()
    logger = log.make(module, heard)
    found = module.Runtime(logger)
    with pytest.raises(
        EngineError, match=r"x\.plan cannot run here: it is no plan of TensorRT-RTX"
    ):
        runner.check_validity(module, found, b"x" * 4096, "x.plan", heard, bench.device)
