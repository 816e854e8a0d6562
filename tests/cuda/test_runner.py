"""The GPU runner's order of work, memory and times, on a simulated GPU that may reorder it.

What only a real GPU shows is in test_deploy.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.cuda import graphs
from quantlab.cuda.device import Device
from quantlab.cuda.queries import Lane, Limit, timed
from quantlab.engines.base import Array, DeviceRunner
from quantlab.engines.device import Fit, Found, GpuRunner, Shape
from quantlab.errors import EngineError, EngineUnavailable
from quantlab.records import EngineInfo, TensorSpec
from tests.cuda.simulated import Cuda, install

X, Y = TensorSpec("x", "float32", ("N", 3)), TensorSpec("y", "float16", ("N", 3))
MORE = TensorSpec("more", "int64", (None,))


@dataclass
class Doubling:
    """y = 2 x + 1; ``more`` counts up to the number of rows, in memory of its own.

    On the GPU it spoils its input behind it, and its output while it works.
    """

    cuda: Cuda
    device: Device
    late: bool = False
    largest: int = 0
    seconds: float = 0.0
    host: float = 0.0
    obstacle: str = ""
    good: int | None = None
    """Inferences until it fails."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    fits: int = 0
    closed: bool = False
    memory: int = 0

    inputs: tuple[TensorSpec, ...] = (X,)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (Y, MORE) if self.late else (Y,)

    def fit(self, shapes: Mapping[str, Shape]) -> Fit:
        if shapes["x"][0] == 13:
            raise EngineError("no profile covers 13")
        self.fits += 1
        self.shapes = dict(shapes)
        largest = {"x": (self.largest, 3), "y": (self.largest, 3)} if self.largest else {}
        known: dict[str, Shape | None] = {"y": shapes["x"]}
        return Fit(known | ({"more": None} if self.late else {}), largest)

    def enqueue(self, addresses: Mapping[str, int]) -> Mapping[str, Found]:
        if self.good is not None:
            if self.good == 0:
                raise EngineError("the backend failed")
            self.good -= 1
        self.cuda.now += self.host
        rows = self.shapes["x"][0]
        x = self.cuda.array(addresses["x"], rows * 12).view(np.float32)
        y = self.cuda.array(addresses["y"], rows * 6).view(np.float16)
        self.cuda.queue(self.device.stream, lambda: y.fill(np.nan))

        def work() -> None:
            y[:] = 2 * x + 1
            x.fill(np.nan)

        self.cuda.queue(self.device.stream, work, self.seconds)
        if not self.late:
            return {}
        if not self.memory:
            self.memory = self.cuda.allocate(800)
        more = self.cuda.array(self.memory, rows * 8).view(np.int64)

        def tell() -> None:
            more[:] = np.arange(rows)

        self.cuda.queue(self.device.stream, tell)
        return {"more": Found(self.memory, (rows,))}

    def capturable(self) -> str:
        return self.obstacle

    def describe(self, inputs: Mapping[str, Array], addresses: Mapping[str, int]) -> EngineInfo:
        assert (set(inputs), set(addresses)) == ({"x"}, {"x", "y"})
        return EngineInfo("simulated", self.device.name, 1, "fp32", "f32", (), ("noted",))

    def close(self) -> None:
        self.closed = True
        self.cuda.device.pop(self.memory, None)


def rows(number: int, seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).normal(size=(number, 3)).astype(np.float32)}


def expected(inputs: Mapping[str, Array]) -> Array:
    return np.asarray((2 * inputs["x"].astype(np.float32) + 1).astype(np.float16))


@pytest.fixture
def cuda() -> Cuda:
    return Cuda()


@pytest.fixture
def device(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> Device:
    return install(monkeypatch, cuda)


@pytest.fixture
def opened(cuda: Cuda, device: Device) -> Iterator[GpuRunner]:
    with GpuRunner(device, Doubling(cuda, device)) as runner:
        yield runner


@given(
    seed=st.integers(0, 999),
    numbers=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    graph=st.booleans(),
    late=st.booleans(),
    largest=st.sampled_from([0, 5]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_order_that_cuda_may_choose_gives_the_right_result(
    monkeypatch: pytest.MonkeyPatch, seed: int, numbers: list[int], *, graph: bool, late: bool,
    largest: int,
) -> None:  # fmt: skip
    cuda = Cuda(seed=seed)
    with monkeypatch.context() as patched:
        device = install(patched, cuda)
        executor = Doubling(cuda, device, late=late, largest=largest)
        with GpuRunner(device, executor, cuda_graph=graph) as runner:
            kept = []
            for turn, number in enumerate(numbers):
                inputs = rows(number, seed + turn)
                kept.append((inputs, runner.run(inputs)))
                if turn % 3 == 2:
                    cuda.copied.clear()
                    runner.queries(inputs, least=5, seconds=0, transfers=True)
                    copies = [c for c in cuda.copied if len(c) == 6 * number]
                    assert len(copies) >= 5
                    assert set(copies) == {expected(inputs).tobytes()}
            for inputs, found in kept:  # each is the caller's own
                np.testing.assert_array_equal(found["y"], expected(inputs))
                if late:
                    np.testing.assert_array_equal(found["more"], np.arange(len(inputs["x"])))
        assert cuda.used() == 0
        assert cuda.graphs == {}
        assert executor.closed


def test_a_runner_is_a_device_runner(opened: GpuRunner) -> None:
    assert isinstance(opened, DeviceRunner)
    assert not opened.cuda_graph
    assert (opened.bus, opened.notes) == ("", ())
    assert opened.inputs == (X,)


def test_times_are_those_of_the_events(cuda: Cuda, device: Device) -> None:
    executor = Doubling(cuda, device, seconds=3e-3, host=50e-6)
    cuda.costs.h2d, cuda.costs.d2h = 2e-3, 1e-3
    with GpuRunner(device, executor) as runner:
        found = runner.queries(rows(2), least=20, seconds=0, transfers=True)
        # Each call takes the host a microsecond, which may fall between two events.
        np.testing.assert_allclose(found.h2d, 2.0, rtol=0.002)
        np.testing.assert_allclose(found.compute[1:], 3.0, rtol=0.002)
        np.testing.assert_allclose(found.d2h, 1.0, rtol=0.002)
        # Copies run beside the inferences of the neighbours, so these are back to back.
        assert found.seconds == pytest.approx(2e-3 + 20 * 3e-3 + 1e-3, rel=0.01)
        bare = runner.queries(rows(2), least=20, seconds=0, transfers=False)
        np.testing.assert_array_equal(bare.h2d, 0.0)
        np.testing.assert_array_equal(bare.d2h, 0.0)
        assert bare.seconds == pytest.approx(20 * 3e-3, rel=0.01)
        assert len(bare.compute) == len(bare.enqueue) == 20


def test_the_host_measures_how_long_it_takes_to_enqueue(cuda: Cuda, device: Device) -> None:
    def infer(stream: object) -> None:
        cuda.now += 70e-6
        cuda.queue(device.stream, lambda: None, 30e-6)
        assert stream is device.stream

    lane = Lane(lambda _: None, infer, lambda _: None)
    limit = Limit(least=4, seconds=0.01)
    with device.current():
        found = timed(device, [lane, lane], limit, transfers=False, clock=cuda.clock)
    np.testing.assert_allclose(found.enqueue, 0.07)
    # The host is slower than the GPU, which waits for work between the two events.
    assert (found.compute > 0.07).all()
    assert found.seconds == pytest.approx(0.01, rel=0.05)
    assert len(found.compute) > 4


def test_one_lane_waits_for_each_query(cuda: Cuda, device: Device) -> None:
    cuda.costs.h2d, cuda.costs.d2h = 2e-3, 1e-3
    executor = Doubling(cuda, device, late=True, seconds=3e-3)
    with GpuRunner(device, executor) as runner:
        found = runner.queries(rows(2), least=10, seconds=0, transfers=True)
    # There are two outputs, one copied after the other.
    assert found.seconds == pytest.approx(10 * (2e-3 + 3e-3 + 2e-3), rel=0.01)


def test_a_graph_is_captured_for_shapes_that_come_again(cuda: Cuda, device: Device) -> None:
    executor = Doubling(cuda, device)
    with GpuRunner(device, executor, cuda_graph=True) as runner:
        for number in (2, 2):
            runner.run(rows(number))
        assert (cuda.launched, cuda.graphs) == (0, {})
        for seed in range(3):
            inputs = rows(2, seed)
            np.testing.assert_array_equal(runner.run(inputs)["y"], expected(inputs))
        assert cuda.launched == 3
        assert len(cuda.graphs) == 1
        runner.run(rows(4))  # another shape: the graph is dropped
        assert cuda.graphs == {}
        runner.queries(rows(4), least=6, seconds=0, transfers=True)
        assert len(cuda.graphs) == 2  # one for each of the queries in flight
        assert cuda.launched == 3 + 2 + 6
        assert runner.cuda_graph
        assert runner.notes == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"obstacle": "a part runs on the CPU"}, "one by one: a part runs on the CPU"),
        ({"late": True}, "the shape of output 'more' depends on the data"),
        ({"capture": 900}, r"cuStreamEndCapture: operation not permitted.*\(900\)"),
    ],
)
def test_what_cannot_be_captured_is_said_and_runs_all_the_same(
    cuda: Cuda, device: Device, change: dict[str, object], says: str
) -> None:
    executor = Doubling(
        cuda, device, late="late" in change, obstacle=str(change.get("obstacle", ""))
    )
    cuda.capture_fails = 900 * ("capture" in change)
    with GpuRunner(device, executor, cuda_graph=True) as runner:
        for seed in range(4):
            inputs = rows(2, seed)
            np.testing.assert_array_equal(runner.run(inputs)["y"], expected(inputs))
        assert not runner.cuda_graph
        (note,) = runner.notes
        assert re.search(says, note)
        assert runner.describe().notes == ("noted", note)
    assert cuda.launched == 0
    assert cuda.graphs == {}


def test_describe_finds_out_whether_a_graph_can_be_captured(cuda: Cuda, device: Device) -> None:
    executor = Doubling(cuda, device, obstacle="it decides on the way")
    with GpuRunner(device, executor, cuda_graph=True) as runner:
        with pytest.raises(EngineError, match="needs a batch"):
            runner.describe()
        runner.run(rows(2))
        assert "decides on the way" in runner.describe().notes[-1]


def test_a_failure_during_capture_leaves_the_stream_working(cuda: Cuda, device: Device) -> None:
    def fail() -> None:
        raise EngineError("no")

    with device.current():
        with pytest.raises(EngineError, match="no"):
            graphs.capture(fail, device.stream.handle)
        assert cuda.capturing is None
    assert cuda.graphs == {}


def test_buffers_have_the_profiles_size_at_once_or_grow(cuda: Cuda, device: Device) -> None:
    with GpuRunner(device, Doubling(cuda, device, largest=100)) as runner:
        runner.run(rows(1))
        used = cuda.used()
        assert used == 2 * (100 * 12 + 100 * 6)  # x and y, here and there
        for number in (100, 7, 99):
            runner.run(rows(number))
        assert cuda.used() == used
    with GpuRunner(device, Doubling(cuda, device)) as runner:
        sizes = []
        for number in (100, 7, 100, 200, 1):
            runner.run(rows(number))
            sizes.append(cuda.used())
        assert sizes[0] == sizes[1] == sizes[2] < sizes[3] == sizes[4]
    assert cuda.used() == 0


def test_many_inferences_leave_nothing_behind(cuda: Cuda, device: Device) -> None:
    with GpuRunner(device, Doubling(cuda, device), cuda_graph=True) as runner:
        runner.run(rows(4))
        used, handles = cuda.used(), len(cuda.pinned)
        for number in (4, 2) * 300:
            runner.run(rows(number))
        assert (cuda.used(), len(cuda.pinned)) == (used, handles)
        assert len(cuda.graphs) <= 1
    assert cuda.used() == 0


def test_memory_that_does_not_suffice_is_said_and_less_still_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(memory=4000)
    device = install(monkeypatch, cuda)
    with GpuRunner(device, Doubling(cuda, device)) as runner:
        runner.run(rows(10))
        for _ in range(2):
            with pytest.raises(EngineError, match=r"out of memory.*x \[1000, 3\]: run a smaller"):
                runner.run(rows(1000))
        inputs = rows(20)
        np.testing.assert_array_equal(runner.run(inputs)["y"], expected(inputs))
    assert cuda.used() == 0


def test_a_failure_is_passed_on_and_the_runner_goes_on(cuda: Cuda, device: Device) -> None:
    executor = Doubling(cuda, device)
    with GpuRunner(device, executor) as runner:
        for _ in range(2):
            with pytest.raises(EngineError, match="no profile covers 13"):
                runner.run(rows(13))
            executor.good = 0
            with pytest.raises(EngineError, match="the backend failed"):
                runner.run(rows(2))
            executor.good = 6
            with pytest.raises(EngineError, match="the backend failed"):
                runner.queries(rows(2), least=99, seconds=0, transfers=True)
            executor.good = None
            inputs = rows(3)
            np.testing.assert_array_equal(runner.run(inputs)["y"], expected(inputs))
        with pytest.raises(EngineError, match=r"expected x float32\[N, 3\], got float64"):
            runner.run({"x": np.zeros((2, 3))})
    assert cuda.used() == 0


def test_a_closed_runner_says_so_and_closes_once(opened: GpuRunner) -> None:
    opened.run(rows(2))
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="was closed; open it again"):
        opened.run(rows(2))


def test_graphs_need_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    graphs.library.cache_clear()
    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(EngineUnavailable, match=r"driver is missing \(libcuda\.so\.1"):
        graphs.library()
    graphs.library.cache_clear()
