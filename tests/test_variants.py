"""Any method from a finished run: what a calibration by it would have written, or a clear error."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from quantlab import cache, manifest
from quantlab.calibrators import CALIBRATORS
from quantlab.calibrators.quality import sqnr_db
from quantlab.collect import saved
from quantlab.errors import CalibrationError, ConfigError, OutputError
from quantlab.variants import Variant, parse, try_methods
from tests.recorded import BATCH, Recipe, recorded
from tests.runs import left_behind


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("variants") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("mse", {}),
        ("percentile:percentile=99.9", {"percentile": 99.9}),
        ("entropy:levels=255,zero_bin=count", {"levels": 255, "zero_bin": "count"}),
        ("minmax_mean:averaging_constant=1e-2", {"averaging_constant": 0.01}),
        ("minmax_mean", {}),
    ],
)
def test_a_run_by_a_method_and_the_method_tried_later_write_the_same_bytes(
    text: str, parameters: dict[str, object], tmp_path: Path
) -> None:
    variant = parse(text)
    assert variant.parameters == parameters
    own = recorded(tmp_path / "own", Recipe(method=variant.method, parameters=parameters))
    other = recorded(tmp_path / "other", Recipe(method="percentile"))
    for folder in (own, other):
        tried = try_methods(folder, [text]).folder / f"{variant.label}.cache"
        assert tried.read_bytes() == (own / "calibration.cache").read_bytes()
        now = manifest.load(own / "calibration.json")
        assert manifest.check(tried, manifest.beside(tried), now, ("t0", "t2_pooled")) == ()


def test_every_calibrator_is_tried_by_default(run: Path) -> None:
    tried = try_methods(run)
    assert tried.folder == run / "methods"
    assert tried.labels == tuple(CALIBRATORS)
    found = {path.name for path in tried.folder.iterdir()}
    expected = {f"{name}.{suffix}" for name in CALIBRATORS for suffix in ("cache", "json")}
    assert found == {*expected, "methods.csv"}
    assert not left_behind(run)
    again = {path: path.read_bytes() for path in tried.folder.glob("*.cache")}
    try_methods(run)
    assert {path: path.read_bytes() for path in again} == again


def test_tied_tensors_share_a_scale_and_followers_have_their_sources(run: Path) -> None:
    for path in try_methods(run).folder.glob("*.cache"):
        scales = cache.read(path).scales
        assert scales["t0"] == scales["t1"] == scales["t3"] != scales["t2"]
        assert scales["t2_pooled"] == scales["t2"]
        assert list(scales)[-2:] == ["t2_pooled", "a_flat"]  # in the run's order
        assert manifest.load(manifest.beside(path)).tied == {"t2_pooled": "t2", "a_flat": "t5"}


def test_the_manifest_tells_the_method_and_the_batch_where_it_counts(run: Path) -> None:
    target = try_methods(run, ["percentile:percentile=99.5", "minmax_mean"]).folder
    first = manifest.load(target / "percentile-percentile=99.5.json")
    assert (first.method, first.knobs) == ("percentile", {"percentile": 99.5, "nonfinite": "fail"})
    second = manifest.load(target / "minmax_mean.json")
    assert second.knobs == {"nonfinite": "fail", "batch": BATCH}
    assert second.data_hash == manifest.load(run / "calibration.json").data_hash


def test_the_table_holds_the_predicted_error_of_every_tensor(run: Path) -> None:
    tried = try_methods(run, ["minmax", "percentile:percentile=90"])
    histograms = saved.load(run / "histograms.npz")
    with (tried.folder / "methods.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["tensor"]) for row in rows] == [
        (label, tensor) for label in tried.labels for tensor in histograms
    ]
    for row, prediction in zip(rows, tried.predictions, strict=True):
        histogram = histograms[row["tensor"]]
        assert float(row["threshold"]) == prediction.threshold
        expected = sqnr_db(histogram, prediction.threshold)
        assert expected is not None
        assert float(row["sqnr_db"]) == pytest.approx(expected, rel=1e-12)
        assert float(row["amax"]) == histogram.amax
    clipped = {
        row["variant"]: float(row["clipped_fraction"]) for row in rows if row["tensor"] == "t5"
    }
    assert clipped["minmax"] == 0
    assert 0.09 < clipped["percentile-percentile=90"] <= 0.1


def test_another_folder_leaves_the_run_alone(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    target = tmp_path / "a" / "b"
    assert try_methods(run, ["mse"], output=target).folder == target
    assert (target / "mse.cache").exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mes", "unknown method 'mes'; did you mean 'mse'"),
        ("", "unknown method ''"),
        ("mse:", "expected NAME or NAME:key=value,key=value, got ''"),
        ("mse:levels", "got 'levels'"),
        ("mse:levels=", "got 'levels='"),
        ("mse:=3", "got '=3'"),
        ("mse:levels=3,levels=4", "'levels' is given twice"),
        ("mse:level=3", "has no parameter 'level'; did you mean 'levels'"),
        ("mse:levels=many", r"'levels'.*got 'many'"),
        ("percentile:percentile=NaN", "percentile"),
        ("percentile:percentile=101", "percentile.*101"),
    ],
)
def test_a_method_that_is_none_is_refused_before_anything_is_written(
    run: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        try_methods(run, ["minmax", text])
    assert not (run / "methods").exists()


def test_a_method_twice_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mse-levels=100' is given twice"):
        try_methods(run, ["mse:levels=100", "mse:levels=100"])


@given(st.dictionaries(st.text("ab_", min_size=1), st.integers() | st.text("xy", min_size=1)))
def test_parsing_undoes_writing(parameters: dict[str, int | str]) -> None:
    text = "name:" + ",".join(f"{key}={value}" for key, value in parameters.items())
    assert parse(text if parameters else "name") == Variant("name", parameters)


@pytest.mark.parametrize(
    "file",
    [
        "histograms.npz",
        "batch_amax.npz",
        "collection.json",
        "calibration.cache",
        "calibration.json",
    ],
)
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_files_that_are_not_as_recorded_are_refused(run: Path, file: str, damage: str) -> None:
    if damage == "missing":
        (run / file).unlink()
    else:
        with (run / file).open("ab") as stream:
            stream.write(b" ")
    with pytest.raises(
        OutputError, match=rf"{file} (is|was) {damage}.*'quantlab calibrate CONFIG'"
    ):
        try_methods(run)
    assert not (run / "methods").exists()


@pytest.mark.parametrize("step", ["collect", "decide"])
def test_a_calibration_that_is_not_finished_is_refused(run: Path, step: str) -> None:
    change(run, lambda steps: steps.pop(step))
    with pytest.raises(OutputError, match=rf"step '{step}': not done yet"):
        try_methods(run)


def test_a_decision_older_than_the_collection_is_refused(run: Path) -> None:
    change(run, lambda steps: steps["decide"]["made_from"].update(histograms="0" * 64))
    with pytest.raises(OutputError, match=r"histograms\.npz is newer than calibration\.cache"):
        try_methods(run)


def test_a_run_without_recorded_ties_is_refused(run: Path) -> None:
    change(run, lambda steps: steps["decide"]["made_from"].pop("tied tensors"))
    with pytest.raises(OutputError, match=r"run\.json: step 'decide' records no tied tensors"):
        try_methods(run)


def change(run: Path, how: object) -> None:
    """Change what run.json records of the steps."""
    assert callable(how)
    facts = json.loads((run / "run.json").read_text())
    how(facts["steps"])
    (run / "run.json").write_text(json.dumps(facts))


def test_a_run_that_kept_no_maxima_takes_the_other_methods(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", Recipe(maxima=False))
    with pytest.raises(CalibrationError, match=r"'t0'.*each batch.*choose another method"):
        try_methods(run)
    assert not (run / "methods").exists()
    others = [name for name in CALIBRATORS if name != "minmax_mean"]
    assert try_methods(run, others).labels == tuple(others)


def test_what_is_no_run_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("model: m.onnx\n")
    for path in (tmp_path / "nowhere", tmp_path, config):
        with pytest.raises(OutputError, match=r"expected a run folder, it has no run\.json"):
            try_methods(path)
    assert sorted(tmp_path.iterdir()) == [config]


def test_a_run_in_use_is_refused(run: Path) -> None:
    with FileLock(run / ".lock"), pytest.raises(OutputError, match="in use by another run"):
        try_methods(run)


def test_a_folder_that_cannot_be_made_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        try_methods(run, ["mse"], output=tmp_path / "file" / "methods")


def test_labels_are_file_names() -> None:
    assert Variant("m", {"b": None, "a": "x/y z"}).label == "m-a=x_y_z-b=null"
