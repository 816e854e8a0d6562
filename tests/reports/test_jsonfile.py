"""report.json comes back as it was, fits its schema, and nothing else is taken for one."""

import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings

from quantlab.errors import DataError
from quantlab.records import Report
from quantlab.reports import jsonfile
from tests.reports.sample import sample
from tests.reports.strange import reports

VALIDATOR = jsonschema.Draft202012Validator(jsonfile.schema())


def test_the_schema_is_one() -> None:
    VALIDATOR.check_schema(jsonfile.schema())


@settings(max_examples=25)
@given(reports())
def test_round_trip_and_schema(report: Report) -> None:
    text = jsonfile.dumps(report)
    assert jsonfile.loads(text, "here") == report
    VALIDATOR.validate(json.loads(text))


def test_contract_of_the_published_keys() -> None:
    data = json.loads(jsonfile.dumps(sample()))
    int8 = data["engines"][2]
    assert int8["precision"] == "int8"
    assert int8["accuracy"]["top1"]["delta"].keys() == {"value", "low", "high"}
    assert int8["performance"][2]["speedup"]["value"] == 2.1
    assert {"batch", "p50_ms", "p90_ms", "p99_ms", "throughput"} <= int8["performance"][0].keys()
    tensor = {"name", "amax", "threshold", "scale", "method", "clipped_fraction", "sqnr_db"}
    assert tensor | {"nan", "inf", "zero"} <= data["tensors"][0].keys()
    assert {"seconds", "inference_seconds", "peak_rss_bytes", "model_hash", "data_hash"} <= data[
        "calibration"
    ].keys()


def test_a_report_from_before_tensorrt_still_loads() -> None:
    """0.1.0 wrote no fusions, facts or device, and it searched for nothing."""
    data = json.loads(jsonfile.dumps(sample()))
    for engine in data["engines"]:
        del engine["fusions"], engine["facts"]
        for speed in engine["performance"]:
            del speed["device"]
        for accuracy in engine["accuracy"].values():
            accuracy.pop("p_value", None)
    for name in ("analysis", "repair", "search", "followers"):
        del data[name]
    expected = replace(sample(), analysis=None, repair=None, search=None)
    assert jsonfile.loads(json.dumps(data), "here") == expected


def test_shipped_schema_is_the_records_schema() -> None:
    text = resources.files("quantlab.reports").joinpath("report.schema.json").read_text("utf-8")
    shipped, made = json.loads(text), jsonfile.schema()
    remedy = "write it anew: python -m quantlab.reports > reports/report.schema.json"
    assert shipped["$ref"] == made["$ref"]
    assert shipped["$defs"].keys() == made["$defs"].keys(), remedy
    for name, record in made["$defs"].items():
        for key in ("required", "additionalProperties"):
            assert shipped["$defs"][name].get(key) == record.get(key), f"{name}: {remedy}"
        properties = shipped["$defs"][name]["properties"]
        assert properties.keys() == record["properties"].keys(), f"{name}: {remedy}"


def test_schema_refuses_an_unknown_key() -> None:
    data = json.loads(jsonfile.dumps(sample()))
    data["engines"][0]["extra"] = 1
    with pytest.raises(jsonschema.ValidationError, match="extra"):
        VALIDATOR.validate(data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"opset": 17', '"opset": "17"', r"here: model\.opset: .*integer.*repeat the run"),
        ('"opset": 17', '"opset": 17, "extra": 1', r"model\.extra: Unexpected"),
        ('"opset": 17,', "", r"model\.opset: "),
        ('"p50_ms": ', '"p50_ms": NaN, "x": ', r"p50_ms: .*finite"),
        ('"schema_version": 1', '"schema_version": 2', "schema_version: expected 1, got 2"),
        ("{", "[", "here: the whole file: "),
    ],
)
def test_what_is_not_a_report_is_refused_by_place(old: str, new: str, message: str) -> None:
    text = jsonfile.dumps(sample())
    assert old in text
    with pytest.raises(DataError, match=message):
        jsonfile.loads(text.replace(old, new, 1), "here")


def test_a_number_that_is_not_finite_is_named() -> None:
    report = sample()
    broken = replace(report.tensors[1], amax=math.inf)
    with pytest.raises(ValueError, match=r"report\.tensors\.1\.amax: .*finite.*inf"):
        jsonfile.dumps(replace(report, tensors=(report.tensors[0], broken)))


def test_a_file_name_that_is_no_unicode_is_kept_readable() -> None:
    text = jsonfile.dumps(replace(sample(), command="quantlab run \udcff.yaml"))
    assert jsonfile.loads(text, "here").command == "quantlab run \\udcff.yaml"


def test_load_takes_a_run_folder_or_the_file(tmp_path: Path) -> None:
    report = sample()
    (tmp_path / "report.json").write_text(jsonfile.dumps(report), encoding="utf-8")
    assert jsonfile.load(tmp_path) == jsonfile.load(tmp_path / "report.json") == report


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*report\.json.*expected a run folder"):
        jsonfile.load(tmp_path)


def test_load_refuses_a_huge_file_unread(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with path.open("wb") as file:
        file.truncate(jsonfile.SIZE_LIMIT + 1)  # sparse: takes no room on disk
    with pytest.raises(DataError, match="larger than"):
        jsonfile.load(path)
