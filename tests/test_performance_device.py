"""An engine on a device is measured by its own clock: on one that the test knows, every number is.

The runner of a real GPU is tested in cuda/test_runner.py.
"""

import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count, cycle
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.base import Array, Queries, Runner
from quantlab.measured import DevicePerformance, Performance
from quantlab.performance import Schedule, measure
from quantlab.records import EngineInfo, Precision

INPUTS = {"x": np.zeros((4, 2), np.float32)}


@dataclass
class OnDevice:
    """A DeviceRunner whose queries take what it says, two of them under way at once.

    Times are in ms; ``compute`` is a query's, from its number.
    """

    compute: Callable[[int], float]
    h2d: float = 0.5
    d2h: float = 0.25
    enqueue: float = 0.1
    overlap: float = 1.0
    """Time from one query's end to the next one's, over the longest of the three parts."""

    cuda_graph: bool = False
    bus: str = ""
    notes: tuple[str, ...] = ()
    asked: list[tuple[int, float, bool]] = field(default_factory=list)

    def queries(
        self, inputs: Mapping[str, Array], *, least: int, seconds: float, transfers: bool
    ) -> Queries:
        assert inputs is INPUTS
        self.asked.append((least, seconds, transfers))
        taken: list[float] = []
        pace = 0.0
        while len(taken) < least or pace < 1e3 * seconds:
            taken.append(self.compute(len(taken)))
            copies = [self.h2d, self.d2h] if transfers else [0.0]
            pace += self.overlap * max(taken[-1], *copies)
        number = len(taken)
        return Queries(
            seconds=pace / 1e3,
            h2d=np.full(number, self.h2d * transfers),
            compute=np.array(taken),
            d2h=np.full(number, self.d2h * transfers),
            enqueue=np.full(number, self.enqueue),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError("a device is not measured by the host's clock")

    def describe(self) -> EngineInfo:
        raise NotImplementedError("measurement does not ask")


def measured(
    schedule: Schedule, **runners: OnDevice
) -> dict[Precision, tuple[Performance, DevicePerformance]]:
    names: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    engines = {name: runners[name] for name in names if name in runners}
    results = measure(engines, lambda _: INPUTS, schedule=schedule, clock=lambda: math.nan)
    found = {}
    for precision, (performance,) in results.items():
        assert performance.device is not None
        found[precision] = performance, performance.device
    return found


ONCE = Schedule((4,), seconds=2.0, rounds=5)


def test_a_device_is_measured_with_and_without_copies() -> None:
    runner = OnDevice(lambda _: 2.0)
    ((performance, device),) = measured(ONCE, int8=runner).values()
    assert performance.p50_ms == performance.p99_ms == pytest.approx(0.5 + 2.0 + 0.25)
    # Copies run beside other queries' inferences, so they take nothing from the throughput.
    assert performance.throughput == pytest.approx(4 / 2e-3)
    assert device.throughput_without_transfers == pytest.approx(4 / 2e-3)
    assert (performance.rounds, performance.inferences) == (5, 5 * 100)
    assert (device.compute_ms.p50, device.h2d_ms.p90, device.d2h_ms.p99) == (2.0, 0.5, 0.25)
    assert device.enqueue_ms.p50 == 0.1
    assert (device.clocks_mhz, device.power_watts, device.warnings) == (None, None, ())
    warm, *turns = runner.asked
    assert warm == (1, ONCE.warmup_seconds, True)
    assert turns == [(2, 0.2, True), (2, 0.2, False)] * 5


def test_slow_copies_show_in_the_throughput_with_them_alone() -> None:
    runner = OnDevice(lambda _: 2.0, h2d=8.0, d2h=1.0)
    ((performance, device),) = measured(ONCE, fp32=runner).values()
    assert performance.throughput == pytest.approx(4 / 8e-3)
    assert device.throughput_without_transfers == pytest.approx(4 / 2e-3)
    (warning,) = device.warnings
    assert warning.startswith("copying to the GPU takes 8 ms, no less than the inference's 2 ms")
    back = OnDevice(lambda _: 2.0, d2h=2.0)
    ((_, device),) = measured(ONCE, fp32=back).values()
    assert [text[:12] for text in device.warnings] == ["copying back"]


@given(st.lists(st.integers(1, 1000).map(lambda us: us / 1024), min_size=10, max_size=30))
def test_a_devices_percentiles_are_trtexecs(latencies: list[float]) -> None:
    runner = OnDevice(lambda i: latencies[i % len(latencies)], h2d=0.0, d2h=0.0)
    schedule = Schedule((1,), seconds=1e-9, rounds=1)
    ((_, device),) = measured(schedule, fp32=runner).values()
    ordered = sorted(latencies[:10])
    assert device.compute_ms.p50 == pytest.approx((ordered[4] + ordered[5]) / 2)
    # trtexec's place n - 1 - floor((1 - p / 100) n), with the exact share
    assert device.compute_ms.p90 == ordered[10 - 1 - 1]
    assert device.compute_ms.p99 == ordered[10 - 1 - 0]


@given(st.integers(1, 100), st.sampled_from([50, 90, 95, 99]))
def test_trtexecs_place_is_the_nearest_rank(number: int, percent: int) -> None:
    place = number - 1 - (100 - percent) * number // 100
    assert place == math.ceil(percent * number / 100 - 1e-9) - 1
    ordered = [float(i) for i in range(number)]
    found = np.percentile(ordered, percent, method="inverted_cdf")
    assert found == place


def test_the_speedup_of_a_device_is_of_its_throughputs() -> None:
    found = measured(ONCE, fp32=OnDevice(lambda _: 3.0), int8=OnDevice(lambda _: 1.0))
    speedup = found["int8"][0].speedup
    assert speedup is not None
    assert speedup.value == pytest.approx(3.0, rel=0.01)


def test_a_host_and_a_device_side_by_side() -> None:
    now = count(0.0, 0.005)

    def clock() -> float:
        return next(now)

    class Host:
        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            return {"y": inputs["x"]}

        def describe(self) -> EngineInfo:
            raise NotImplementedError

    runners: dict[Precision, Runner] = {"fp32": Host(), "int8": OnDevice(lambda _: 1.0)}
    results = measure(runners, lambda _: INPUTS, schedule=Schedule((1,), seconds=0.1), clock=clock)
    (fp32,), (int8,) = results["fp32"], results["int8"]
    assert fp32.device is None
    assert int8.device is not None
    assert int8.speedup is not None
    assert int8.speedup.value == pytest.approx(5, rel=0.05)  # the clock moves 5 ms a look


@pytest.mark.parametrize(
    ("runner", "says"),
    [
        (OnDevice(lambda _: 0.2, h2d=0.0, d2h=0.0, enqueue=0.15), None),
        (
            OnDevice(lambda _: 0.2, h2d=0.0, d2h=0.0, enqueue=0.17),
            r"bound by the host: .* takes 0\.17 ms, .*80% of the GPU's 0\.2 ms; 'cuda_graph: true'",
        ),
        (
            OnDevice(lambda _: 0.2, h2d=0.0, d2h=0.0, enqueue=0.17, cuda_graph=True),
            r"more than 80% of the GPU's 0\.2 ms$",
        ),
        (OnDevice(lambda i: 2.0 + 0.04 * (i % 2)), None),
        (OnDevice(lambda i: 2.0 + 0.2 * (i % 2)), r"unstable: the GPU's time varies by 4\.8%"),
        (OnDevice(lambda _: 2.0, notes=("no CUDA graph: late",)), r"^no CUDA graph: late$"),
    ],
)
def test_doubts_are_said(runner: OnDevice, says: str | None) -> None:
    ((_, device),) = measured(ONCE, fp32=runner).values()
    assert device.cuda_graph is runner.cuda_graph
    if says is None:
        assert device.warnings == ()
    else:
        (warning,) = device.warnings
        assert re.search(says, warning)


@pytest.mark.parametrize(("low", "warns"), [(1900, False), (1800, True)])
def test_clock_and_power_are_those_while_it_ran(
    monkeypatch: pytest.MonkeyPatch, low: int, *, warns: bool
) -> None:
    """NVML is a small module here, as its driver library is only on GPU machines."""
    clocks, asked = cycle([1980, low, None]), list[bytes]()

    class NVMLError(Exception):
        pass

    def clock(handle: str, kind: int) -> int:
        assert (handle, kind) == ("gpu", 1)
        found = next(clocks)
        if found is None:
            raise NVMLError("not supported")
        return found

    def handle(bus: bytes) -> str:
        asked.append(bus)
        return "gpu"

    nvml = ModuleType("pynvml")
    vars(nvml).update(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByPciBusId=handle,
        nvmlDeviceGetClockInfo=clock,
        nvmlDeviceGetPowerUsage=lambda _: 350_500,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr("quantlab.cuda.clocks.EVERY", 0.001)

    @dataclass
    class Waiting(OnDevice):
        def queries(
            self, inputs: Mapping[str, Array], *, least: int, seconds: float, transfers: bool
        ) -> Queries:
            time.sleep(0.02)
            return super().queries(inputs, least=least, seconds=seconds, transfers=transfers)

    ((_, device),) = measured(ONCE, fp32=Waiting(lambda _: 2.0, bus="0000:65:00.0")).values()
    assert asked == [b"0000:65:00.0"]
    assert device.clocks_mhz == (low, 1980)
    assert device.power_watts == (350.5, 350.5)
    assert [text for text in device.warnings if "clock moved between" in text] == (
        [device.warnings[-1]] if warns else []
    )


@pytest.mark.parametrize("missing", ["library", "driver", "gpu"])
def test_what_nvml_does_not_tell_stays_untold(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    class NVMLError(Exception):
        pass

    def fail(*_: object) -> None:
        raise NVMLError("not found")

    nvml = ModuleType("pynvml")
    vars(nvml).update(
        NVMLError=NVMLError,
        nvmlInit=fail if missing == "driver" else lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByPciBusId=fail,
    )
    monkeypatch.setitem(sys.modules, "pynvml", None if missing == "library" else nvml)
    runner = OnDevice(lambda _: 2.0, bus="0000:65:00.0")
    ((_, device),) = measured(ONCE, fp32=runner).values()
    assert (device.clocks_mhz, device.power_watts) == (None, None)
