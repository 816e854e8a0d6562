"""Plans built by the real TensorRT-RTX, without a GPU, and its refusals in words."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import main_thread

import onnx_ir as ir
import pytest

from quantlab.cuda.device import driver
from quantlab.engines.base import BuildContext, ShapeRange
from quantlab.engines.tensorrt import TensorRT, TensorRTRTX
from quantlab.engines.trt import builder, monitor, plan
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.options import Float, Order, Settings
from quantlab.engines.trt.profiles import Shapes
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.graph import model as graph
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.to_fp16 import to_fp16
from quantlab.progress import Advance
from quantlab.records import Precision, TensorThreshold
from quantlab.registry import make
from tests.engines.trt.conftest import Ordered
from tests.engines.trt.nets import deep_net, picky_reshape, small_net, unknown_operator
from tests.engines.trt.stand_in_builder import StandIn, as_library
from tests.models import residual, write
from tests.processes import apart

EXAMPLES = Path(__file__).parents[3] / "examples" / "fashion_mnist"


def quantized(model: ir.Model, around: Float) -> ir.Model:
    """Return the Q/DQ model with one threshold for all tensors: what builds does not hang on it."""
    placement = place(model)
    thresholds = {
        tensor: TensorThreshold(tensor, 4.0, 4.0, "minmax", -4.0) for tensor in placement.tensors
    }
    half = around == "fp16"
    made = insert_qdq(model, placement, thresholds, float16=half)
    return to_fp16(made).model if half else made


def converted(model: ir.Model, precision: Precision, around: Float) -> ir.Model:
    if precision == "int8":
        return quantized(model, around)
    return to_fp16(model).model if precision == "fp16" else model


def batches(*, least: int = 1, most: int = 32) -> BuildContext:
    """Return the context of a run that feeds images of one channel."""
    image = ShapeRange((least, 1, 28, 28), (most, 1, 28, 28), (most, 1, 28, 28))
    small = ShapeRange((least, 1, 8, 8), (most, 1, 8, 8), (most, 1, 8, 8))
    return BuildContext(shapes={"image": image, "x": small})


@pytest.fixture(params=["residual", "resnet", "mobilenet"], scope="module")
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    source = EXAMPLES / f"{request.param}.onnx"
    if request.param == "residual":
        source = write(residual(), tmp_path_factory.mktemp("model") / "residual.onnx")
    return prepare(graph.load(source)).model


@pytest.mark.parametrize(
    ("precision", "around"),
    [("fp32", "fp32"), ("fp16", "fp32"), ("int8", "fp32"), ("int8", "fp16")],
)
@pytest.mark.usefixtures("rtx")
def test_every_graph_that_is_made_builds(
    prepared: ir.Model, tmp_path: Path, precision: Precision, around: Float
) -> None:
    path = tmp_path / f"{precision}.onnx"
    graph.save(converted(prepared, precision, around), path)
    (tmp_path / "engines").mkdir()
    engine = TensorRTRTX(around=around, targets=("sm86",))
    made = engine.build(path, precision, tmp_path / "engines", batches())
    data = (tmp_path / made.path).read_bytes()
    manifest = plan.read(tmp_path / made.path)
    assert made.size_bytes == len(data) + plan.beside(tmp_path / made.path).stat().st_size
    assert set(made.files) == {made.path, f"{made.path}.json"}
    assert (manifest.precision, manifest.options.around) == (precision, around)
    assert manifest.options.strongly_typed
    assert manifest.quantization == ("explicit" if precision == "int8" else "none")
    assert manifest.compute_capability is None
    (profile,) = manifest.profiles
    (shapes,) = profile.values()
    assert (shapes.least[0], shapes.most[0]) == (1, 32)
    assert made.device == "GPUs sm86"
    assert made.facts["TF32"] == "off"


def test_half_the_weights_are_half_the_plan(rtx: Library, tmp_path: Path) -> None:
    model = prepare(graph.load(EXAMPLES / "resnet.onnx")).model
    sizes = []
    for precision in ("fp32", "fp16"):
        path = tmp_path / f"{precision}.onnx"
        graph.save(converted(model, precision, "fp32"), path)
        order = Order(rtx, Settings(targets=("sm86",)), "fp32", path, batches())
        sizes.append(len(builder.build(order).plan))
    assert 0.4 < sizes[1] / sizes[0] < 0.7  # weights are most of it


class Bars:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.done: list[int] = []
        self.said: list[str] = []

    @contextmanager
    def track(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        self.titles.append(f"{title} of {total} {unit}")
        yield self.done.append

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


def test_the_bar_is_tensorrts_progress(rtx: Library, ordered: Ordered) -> None:
    bars = Bars()
    builder.build(ordered(small_net(), context=BuildContext(progress=bars)))
    assert bars.titles == [f"{rtx}: fp32 from model.onnx of 100 %"]
    assert bars.done == sorted(set(bars.done))
    assert bars.done[-1] == 100
    assert len(bars.done) > 10


class Interrupting(Bars):
    """Presses Ctrl-C when something is shown."""

    @contextmanager
    def track(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:  # noqa: ARG002
        def advance(percent: int) -> None:
            if not self.done:
                signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
                time.sleep(0.2)  # this thread is TensorRT's; the main one hears it meanwhile
            self.done.append(percent)

        yield advance


def interrupted(model: Path, folder: Path) -> tuple[list[int], list[str]]:
    """Return the percents and the words of a build that Ctrl-C ends."""
    bars = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        TensorRTRTX().build(model, "fp32", folder, BuildContext(progress=bars))
    return bars.done, bars.said


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_ends_the_build_and_leaves_nothing(tmp_path: Path) -> None:
    path = write(deep_net(20), tmp_path / "deep.onnx")
    folder = tmp_path / "engines"
    folder.mkdir()
    done, said = apart(interrupted, path, folder)
    assert list(folder.iterdir()) == []
    assert done[-1] < 100
    assert "stops at its next step; no plan is written" in said[0]


@pytest.mark.usefixtures("rtx")
def test_a_failed_build_leaves_the_plan_that_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    folder.mkdir()
    engine = TensorRTRTX(targets=("sm86",))
    good = write(small_net(), tmp_path / "good.onnx")
    before = engine.build(good, "fp32", folder)
    bad = write(unknown_operator(), tmp_path / "bad.onnx")
    with pytest.raises(EngineError, match="'fold1'"):
        engine.build(bad, "fp32", folder)
    assert engine.build(good, "fp32", folder).files.keys() == before.files.keys()
    assert {path.name for path in folder.iterdir()} == {"fp32.plan", "fp32.plan.json"}


def test_several_profiles_come_from_the_config(ordered: Ordered) -> None:
    def shapes(least: int, most: int) -> dict[str, Shapes]:
        x = (16, 8, 8)
        return {"x": Shapes((least, *x), (most, *x), (most, *x))}

    settings = Settings(profiles=(shapes(1, 1), shapes(2, 16)), targets=("sm89",))
    made = builder.build(ordered(small_net(batch="N"), settings))
    assert [p["x"].most[0] for p in made.profiles] == [1, 16]
    need = {"x": ShapeRange((1, 16, 8, 8), (8, 16, 8, 8), (32, 16, 8, 8))}
    order = ordered(small_net(batch="N"), settings, context=BuildContext(shapes=need))
    with pytest.raises(EngineError, match="the run needs shape"):
        builder.build(order)


def test_a_shape_that_the_model_cannot_take_names_the_layer(ordered: Ordered) -> None:
    need = {"x": ShapeRange((1, 35), (3, 35), (4, 35))}
    with pytest.raises(EngineError, match=r"reshape1.*change 'profiles', or the batch sizes"):
        builder.build(ordered(picky_reshape(), context=BuildContext(shapes=need)))


def test_too_little_workspace_says_how_to_allow_more(ordered: Ordered) -> None:
    settings = Settings(memory={"workspace": 1 << 20}, targets=("sm86",))
    with pytest.raises(EngineError, match=r"workspace.*; allow it more: 'memory: \{workspace"):
        builder.build(ordered(small_net(), settings))


def test_stripping_without_a_gpu_says_that_it_needs_one(ordered: Ordered) -> None:
    with pytest.raises(EngineError, match=r"'strip_weights' is what TensorRT-RTX 1\.7 fails"):
        builder.build(ordered(small_net(), Settings(strip_weights=True)))


def test_targets_decide_what_is_in_the_plan(ordered: Ordered) -> None:
    one = builder.build(ordered(small_net(), Settings(targets=("sm86",))))
    two = builder.build(ordered(small_net(), Settings(targets=("sm86", "sm120"))))
    assert len(two.plan) > len(one.plan)


def test_warnings_are_counted_in_the_notes(ordered: Ordered, tmp_path: Path) -> None:
    model = prepare(graph.load(write(residual(), tmp_path / "m.onnx"))).model
    proto = ir.to_proto(quantized(model, "fp16"))
    (note, *_) = builder.build(ordered(proto, precision="int8", context=batches())).notes
    assert note.startswith("TensorRT warned (")
    assert "scales to fp32" in note


@pytest.mark.usefixtures("rtx")
def test_opening_says_that_it_needs_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    engine = TensorRTRTX()
    made = engine.build(write(small_net(), tmp_path / "m.onnx"), "fp32", tmp_path / "engines")
    assert made.device == "GPUs sm80, sm86, sm89, sm120, sm121 and later"
    try:
        driver()
    except EngineUnavailable as error:
        with pytest.raises(EngineUnavailable, match=r"fp32\.plan runs on an NVIDIA GPU only: CUDA"):
            engine.open(made, tmp_path).__enter__()
        with pytest.raises(EngineUnavailable, match=re.escape(str(error))):
            engine.runnable()
    else:
        engine.runnable()


def test_a_builder_that_is_garbage_does_not_stop_the_next_one() -> None:
    """Where it would, the process waits for ever; so it has one of its own, and little time."""
    pytest.importorskip("tensorrt_rtx")
    script = """if True:
        import gc
        from quantlab.engines.trt import library, log, network
        found = library.load("tensorrt-rtx")
        def started():
            told = log.Log()
            return network.start(found, log.make(found.module, told), told)
        for _ in range(3):
            ring = [started()]
            ring.append(ring)
            del ring
            gc.set_threshold(5)
            kept = started()
            gc.set_threshold(100000)
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "done\n"


def test_the_config_gives_the_keys(tmp_path: Path) -> None:
    keys = {
        "memory": {"workspace": "4GiB"},
        "profiles": [{"x": {"min": [1, 3], "opt": [2, 3], "max": [4, 3]}}],
        "plugins": ["libfoo.so"],
        "pins": {"conv*": "fp32"},
    }
    engine = make("backend", {"rtx": TensorRTRTX}, "rtx", keys, base=tmp_path)
    settings = engine.settings
    assert settings.memory == {"workspace": 4 << 30}
    assert settings.profiles == ({"x": Shapes((1, 3), (2, 3), (4, 3))},)
    assert settings.plugins == (tmp_path / "libfoo.so",)
    assert json.dumps(dict(engine.recipe.pins)) == '{"conv*": "fp32"}'
    classic = make("backend", {"trt": TensorRT}, "trt", {"timing_cache": "t"}, base=tmp_path)
    assert classic == TensorRT(timing_cache=tmp_path / "t")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("CUDA initialization failure with error: 35", "install the NVIDIA driver, or a newer one"),
        ("CUDA initialization failure with error: 100", "check with nvidia-smi"),
    ],
)
def test_a_tensorrt_that_does_not_start_says_why(ordered: Ordered, said: str, remedy: str) -> None:
    order = ordered(small_net(), library=as_library(StandIn("10.3.0", fails=said)))
    with pytest.raises(
        EngineUnavailable, match=f"TensorRT 10.3.0 does not start: {said}.*{remedy}"
    ):
        builder.build_on(order, monitor.Steps(lambda _: None), None)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)", "nvidia-smi"),
        ("Error Code 1: Cuda Runtime (out of memory)", "lower 'memory: {workspace: ...}'"),
        ("Error Code 10: Could not find any implementation for node conv1.", "pin the node"),
        ("Target GPU SM 61 is not supported by this TensorRT release.", "release notes name this"),
        ("libnvinfer_lean.so.10: cannot open shared object file", "lean runtime of the same"),
        ("Error Code 9: something else", "the logger 'quantlab.tensorrt' has all that it said"),
    ],
)
def test_without_a_plan_the_log_is_quoted_with_what_to_do(
    ordered: Ordered, said: str, remedy: str
) -> None:
    order = ordered(small_net(), library=as_library(StandIn("10.3.0", unbuilt=said)))
    with pytest.raises(EngineError) as caught:
        builder.build_on(order, monitor.Steps(lambda _: None), None)
    assert str(caught.value).startswith("TensorRT 10.3.0 cannot build fp32 from model.onnx: ")
    assert said in str(caught.value)
    assert remedy in str(caught.value).partition(said)[2]
