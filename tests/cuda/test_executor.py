"""The executor on a GPU: a whole calibration, and batches that its memory does not hold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import quantlab as ql
from quantlab.collect.cuda_executor import Cuda, Halving
from quantlab.collect.lane import Ranges
from quantlab.collect.saved import load
from quantlab.cuda.device import Device, OutOfDeviceMemory
from quantlab.engines.base import Array
from quantlab.errors import ConfigError
from quantlab.histogram import Histogram, from_array, merge
from tests.runs import workspace


@pytest.mark.gpu
@pytest.mark.parametrize("halve", [False, True])
def test_a_calibration_counts_every_element(tmp_path: Path, device: Device, *, halve: bool) -> None:
    assert Cuda().available() == device.name
    here = workspace(tmp_path / "cpu")
    there = workspace(tmp_path / "gpu", {"executor": {"kind": "cuda", "halve_batch": halve}})
    on_cpu = load(ql.calibrate(here).parent / "histograms.npz")
    on_gpu = load(ql.calibrate(there).parent / "histograms.npz")
    assert on_gpu.keys() == on_cpu.keys()
    assert on_gpu["x"] == on_cpu["x"]  # the input is the same on both
    for name, histogram in on_cpu.items():
        assert on_gpu[name].total == histogram.total
        assert on_gpu[name].amax == pytest.approx(histogram.amax, rel=1e-4)
    again = workspace(tmp_path / "again", {"executor": {"kind": "cuda"}, "calibration.batch": 8})
    assert load(ql.calibrate(again).parent / "histograms.npz") == on_gpu


class Small:
    """A lane whose device holds three samples; what runs is counted by the definition."""

    seconds = 0.0

    def __init__(self) -> None:
        self.parts: list[Histogram] = []

    def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
        if len(samples) > 3:
            raise OutOfDeviceMemory("full")
        x = arrays["x"]
        self.parts.append(from_array("x", x, int(samples[0])))
        return lambda: np.array([[x.min(), x.max()]], np.float64)

    def take(self) -> dict[str, Histogram]:
        return {"x": merge(self.parts)}


def test_halves_are_halved_until_they_fit() -> None:
    x = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    small = Small()
    ranges = Halving(small).run({"x": x}, np.arange(11))()
    assert ranges.tolist() == [[x.min(), x.max()]]
    assert Halving(small).take() == {"x": from_array("x", x)}
    assert max(part.total for part in small.parts) <= 3 * 4


def test_a_sample_that_does_not_fit_is_an_error() -> None:
    class Full(Small):
        def run(self, arrays: Mapping[str, Array], samples: NDArray[np.int64]) -> Ranges:
            raise OutOfDeviceMemory(f"{len(arrays)} arrays of {len(samples)} samples")

    with pytest.raises(OutOfDeviceMemory, match="1 samples"):
        Halving(Full()).run({"x": np.ones((4, 1), np.float32)}, np.arange(4))


def test_a_gpu_has_a_number_from_0() -> None:
    with pytest.raises(ConfigError, match="device_id: expected 0 or more, got -1"):
        Cuda(device_id=-1)
