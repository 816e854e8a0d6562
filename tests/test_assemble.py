"""What the report says is taken from what the steps saved, and what it warns of is in it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from quantlab import assemble
from quantlab.calibrators.base import Calibrator
from quantlab.calibrators.entropy import Entropy
from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.mse import Mse
from quantlab.decide import decide
from quantlab.histogram import BINS, Histogram, from_array
from quantlab.measured import Interval, Performance
from quantlab.records import Build, EngineInfo, EngineReport, Fusion, Layer, TensorReport
from tests.strategies import histograms

LAYERS = (
    Layer("conv1", "Convolution", "i8", weighted=True),
    Layer("conv2", "Convolution", "f32", weighted=True),
    Layer("pool", "Pooling", "f32", weighted=False),
)


def engine(*speeds: Performance, notes: tuple[str, ...] = ()) -> EngineReport:
    build = Build("int8", "reference", "CPU", "engines/a", {}, 10, 1.5, notes=("from the build",))
    info = EngineInfo("reference 1", "some CPU", 2, "int8", "f32 + i8", LAYERS, notes)
    return assemble.engine(build, info, (), speeds)


def speed(ratio: Interval | None) -> Performance:
    return Performance(4, 1.0, 1.0, 1.0, 100.0, 99.0, 101.0, ratio, 10, 2)


def row(values: NDArray[np.generic], method: str) -> tuple[TensorReport, Histogram]:
    histogram = from_array("image", values)
    calibrators: dict[str, Calibrator] = {
        "entropy": Entropy(),
        "mse": Mse(),
        "minmax": MinMax(),
    }
    found = decide({"image": histogram}, calibrators[method], method=method)["image"]
    return assemble.tensor(histogram, found), histogram


def test_unsteady_latencies_are_told() -> None:
    steady = Performance(4, 1.0, 1.9, 9.0, 100.0, 99.0, 101.0, None, 10, 2)
    told = [
        assemble.warnings([engine(s)], [], {}, same_samples=False, skipped=())
        for s in (steady, replace(steady, p90_ms=2.1))
    ]
    assert not any("unsteady" in text for text in told[0])
    assert any("unsteady" in text and "int8 at batch 4 (1 to 2.1 ms)" in text for text in told[1])


def warnings(report: TensorReport, histogram: Histogram) -> tuple[str, ...]:
    return assemble.warnings(
        [], [report], {histogram.tensor: histogram}, same_samples=False, skipped=()
    )


def test_what_a_backend_tells_of_fusions_and_its_file_is_kept() -> None:
    fusion = Fusion("conv", "vertical", ("conv", "relu"))
    build = Build("int8", "b", "d", "int8.plan", {}, 1, 0.1, facts={"TensorRT": "10.3"})
    info = EngineInfo("b", "d", 1, "int8", "i8", LAYERS, fusions=(fusion,))
    report = assemble.engine(build, info, (), ())
    assert report.fusions == (fusion,)
    assert report.facts == {"TensorRT": "10.3"}


def spiky() -> NDArray[np.float32]:
    """Return normalized images: half of them a black background, the rest of any grey."""
    greys = np.random.default_rng(0).uniform(-0.81, 2.02, 50_000)
    return np.concatenate([np.full(50_000, -0.81), greys]).astype(np.float32)


def test_a_method_that_clips_a_spike_is_told_with_both_predictions_and_a_remedy() -> None:
    report, histogram = row(spiky(), "entropy")
    assert report.clipped_fraction == pytest.approx(0.21, abs=0.01)
    (text,) = warnings(report, histogram)
    assert text.startswith("image: entropy clips 21 % of the elements: ")
    assert text.endswith(" dB without clipping; try method mse or minmax")
    whole, _ = row(spiky(), "minmax")
    assert f"{report.sqnr_db:.1f} dB predicted, {whole.sqnr_db:.1f} dB without" in text


@pytest.mark.parametrize("method", ["mse", "minmax"])
def test_methods_that_keep_the_spike_are_not_told(method: str) -> None:
    assert warnings(*row(spiky(), method)) == ()


@pytest.mark.parametrize("method", ["entropy", "mse", "minmax"])
def test_clipping_a_tail_is_what_calibration_is_for(method: str) -> None:
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    assert warnings(*row(values, method)) == ()


def test_a_tensor_that_shares_a_larger_threshold_clips_nothing() -> None:
    report, histogram = row(np.linspace(0, 1, 5000, dtype=np.float32), "minmax")
    shared = replace(report, threshold=100.0, clipped_fraction=0.0, sqnr_db=5.0)
    assert warnings(shared, histogram) == ()


def test_what_calibration_met_is_told() -> None:
    values = np.array([[0.0, np.nan], [np.inf, 0.0]])
    report, histogram = row(values, "minmax")
    assert warnings(report, histogram) == (
        "image: 1 NaN and 1 infinite elements were left out of calibration",
        "image was zero in every calibration sample: INT8 keeps only its zeros",
    )


@pytest.mark.parametrize(("count", "more"), [(1, ""), (20, ""), (23, "; and 3 more")])
def test_skipped_samples_are_counted_and_named(count: int, more: str) -> None:
    skipped = [f"{number}.png: broken" for number in range(count)]
    (text,) = assemble.warnings([], [], {}, same_samples=False, skipped=skipped)
    assert text == f"{count} samples were skipped: {'; '.join(skipped[:20])}{more}"


def test_notes_of_an_engine_are_told_once_with_its_precision() -> None:
    report = engine(notes=("int8: a layer fell back", "no VNNI"))
    assert assemble.warnings([report], [], {}, same_samples=True, skipped=()) == (
        "accuracy was measured on calibration samples: it flatters INT8; evaluate on others",
        "int8: from the build",
        "int8: a layer fell back",
        "int8: no VNNI",
    )


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (Interval(0.8, 0.7, 0.9), "int8 is slower than fp32 at batch 4: 0.80 x (0.70 to 0.90)"),
        (Interval(1.1, 0.9, 1.3), "int8 is not measurably faster than fp32 at batch 4: 1.10 x"),
        (Interval(1.5, 1.1, 1.9), None),
        (None, None),
    ],
)
def test_int8_that_is_not_faster_is_told(ratio: Interval | None, told: str | None) -> None:
    report = replace(engine(speed(ratio)), notes=())
    found = assemble.warnings([report], [], {}, same_samples=False, skipped=())
    assert len(found) == (told is not None)
    assert told is None or found[0].startswith(told)
    other = replace(report, precision="fp16")
    told_of_fp16 = assemble.warnings([other], [], {}, same_samples=False, skipped=())
    assert [text.replace("fp16", "int8") for text in told_of_fp16] == list(found)


def test_layers_are_counted_by_what_they_computed_in() -> None:
    report = engine()
    assert (report.weighted_layers, report.integer_layers) == (2, 1)
    assert report.float_layers == ("conv2",)


@given(histograms())
def test_a_drawn_histogram_keeps_every_element(histogram: Histogram) -> None:
    if histogram.amax == 0:
        return
    found = decide({histogram.tensor: histogram}, MinMax(), method="minmax")
    rows = [assemble.tensor(histogram, found[histogram.tensor])]
    drawn = assemble.drawn({histogram.tensor: histogram}, rows)
    assert len(drawn) == (rows[0].sqnr_db is not None)
    for thinned in drawn:
        assert sum(thinned.counts) == histogram.total
        assert len(thinned.counts) <= assemble.DRAWN_BINS
        assert thinned.upper >= histogram.amax
        assert thinned.upper <= BINS * histogram.width


def test_the_worst_tensors_are_drawn_first_and_constant_zeros_never() -> None:
    rng = np.random.default_rng(0)
    saved = {
        f"t{power}": from_array(f"t{power}", rng.standard_normal(2000) ** power)
        for power in range(1, 18)
    } | {"zero": from_array("zero", np.zeros(5))}
    found = decide(saved, MinMax(), method="minmax")
    rows = [assemble.tensor(saved[name], threshold) for name, threshold in found.items()]
    ratios = {row.name: row.sqnr_db for row in rows}
    drawn = [thinned.tensor for thinned in assemble.drawn(saved, rows)]
    kept = sorted((db, name) for name, db in ratios.items() if db is not None)
    assert drawn == [name for _, name in kept[: assemble.WORST]]
    assert ratios["zero"] is None
