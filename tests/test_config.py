"""The config file: every wrong key or value is named with its line and the nearest valid key."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantlab import configfile
from quantlab.config import Config
from quantlab.errors import ConfigError
from quantlab.plugs import PLUGS

GOOD = """\
model: model.onnx
calibration:
  dataset: {kind: npz, path: calib.npz}
  samples: 512
  method: percentile
  percentile: 99.9
engines:
  backend: openvino
  precisions: [fp32, int8]
evaluation:
  dataset: {kind: npz, path: eval.npz}
  metrics: [top1, cosine]
targets: {top1_drop: 1.0, speedup: 1.5}
"""


def load(folder: Path, text: str, name: str = "job.yaml") -> Config:
    path = folder / name
    path.write_text(text)
    return configfile.load(path, PLUGS)


def test_paths_are_relative_to_the_file_and_defaults_are_filled_in(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.model == tmp_path / "model.onnx"
    assert config.output == tmp_path / "runs" / "job"
    assert config.calibration.batch == 32
    assert dict(config.calibration.parameters) == {"percentile": 99.9}
    assert config.benchmark is not None
    assert config.benchmark.batches == (1, 32)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("2GiB", 2**31), ("1.5 GB", 1_500_000_000), ("512MiB", 2**29), ("1000", 1000)],
)
def test_memory_is_given_in_bytes_or_with_a_unit(
    tmp_path: Path, written: str, expected: int
) -> None:
    config = load(tmp_path, GOOD.replace("samples: 512", f"max_memory: {written}"))
    assert config.calibration.max_memory == expected


def test_who_collects_is_this_process_unless_told(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.executor.kind == "local"
    assert (config.calibration.max_memory, config.calibration.checkpoint) == (None, 16)
    config = load(tmp_path, GOOD + "executor: {kind: local, threads: 2}\n")
    assert dict(config.executor.parameters) == {"threads": 2}


def test_yaml_json_and_toml_mean_the_same(tmp_path: Path) -> None:
    tree = yaml.safe_load(GOOD)
    toml = """
model = "model.onnx"
[calibration]
samples = 512
method = "percentile"
percentile = 99.9
dataset = {kind = "npz", path = "calib.npz"}
[engines]
backend = "openvino"
precisions = ["fp32", "int8"]
[evaluation]
dataset = {kind = "npz", path = "eval.npz"}
metrics = ["top1", "cosine"]
[targets]
top1_drop = 1.0
speedup = 1.5
"""
    assert load(tmp_path, GOOD) == load(tmp_path, json.dumps(tree), "job.json")
    assert load(tmp_path, GOOD) == load(tmp_path, toml, "job.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("samples: 512", "sampels: 512", r"job\.yaml:4: .*no parameter 'sampels'"),
        ("model: model", "modle: model", r"job\.yaml:1: unknown key 'modle'; did you mean 'model'"),
        (
            "  metrics:",
            "  metricks:",
            r":12: unknown key 'evaluation.metricks'; did you mean 'metrics'",
        ),
        ("kind: npz, path: calib", "kind: nzp, path: calib", r":3: calibration.dataset: .*'npz'"),
        ("path: calib.npz", "pth: calib.npz", r":3: .*'pth'; did you mean 'path'"),
        ("percentile: 99.9", "percentile: 199.9", r":5: calibration: percentile: .*199.9"),
        ("percentile: 99.9", "percentile: high", r":6: calibration: .*'percentile'"),
        (
            "method: percentile",
            "method: percentil",
            r":5: calibration: .*did you mean 'percentile'",
        ),
        ("samples: 512", "samples: -1", r":4: calibration.samples: .*greater than 0.*got -1"),
        ("samples: 512", "samples: '512'", r":4: calibration.samples: .*integer"),
        ("samples: 512", "max_memory: 0", r":4: calibration.max_memory: .*greater than 0"),
        ("samples: 512", "max_memory: much", r":4: calibration.max_memory: .*got 'much'"),
        ("samples: 512", "checkpoint: 0", r":4: calibration.checkpoint: .*greater than 0"),
        ("targets:", "executor: {kind: locl}\ntargets:", r":13: executor: .*did you mean 'local'"),
        (
            "targets:",
            "executor: {kind: local, thread: 2}\ntargets:",
            r":13: executor: .*did you mean 'threads'",
        ),
        (
            "targets:",
            "executor: {kind: local, threads: 0}\ntargets:",
            r":13: executor: threads: expected 1 or more, got 0",
        ),
        ("[fp32, int8]", "[fp32, int4]", r":9: engines.precisions.1: .*int4"),
        ("backend: openvino", "backend: openvin", r":8: engines: .*did you mean 'openvino'"),
        ("[top1, cosine]", "[top1, cosin]", r":12: evaluation.metrics.1: .*did you mean 'cosine'"),
        ("top1_drop", "top1_dorp", r":13: targets: unknown target 'top1_dorp'.*'top1_drop'"),
        ("speedup", "top5_drop", r":13: targets: .*evaluation.metrics"),
        ("samples: 512", "samples: 512\n  samples: 3", r":5: key 'samples' again; first on line 4"),
        ("model: model.onnx", "", r"key 'model' is missing"),
        ("model: model.onnx", "model: [", r"not valid YAML"),
        ("targets: {", "targets: {x: 2020-01-01, ", r"date"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace(old, new, 1))


def test_lines_are_named_in_toml_and_json_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job\.toml:3: unknown key 'bench'"):
        load(
            tmp_path,
            'model = "m.onnx"\n\nbench = 3\n[calibration]\ndataset = {kind = "npz"}\n',
            "job.toml",
        )
    with pytest.raises(ConfigError, match=r"job\.json:3: unknown key 'bench'"):
        load(
            tmp_path,
            '{"model": "m",\n\t"calibration": {"dataset": {"kind": "npz"}},\n"bench": 3}',
            "job.json",
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "UTF-8"), (b"- a\n- b\n", "expected keys"), (b"", "expected keys")],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        configfile.load(path, PLUGS)


def test_a_missing_file_a_folder_and_another_suffix_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot read config|expected a"):
            configfile.load(path, PLUGS)
    with pytest.raises(ConfigError, match=r"expected a \.yaml"):
        load(tmp_path, GOOD, "job.txt")
    with pytest.raises(ConfigError, match="too large"):
        load(tmp_path, "#" * (configfile.LARGEST + 1))


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    with pytest.raises(ConfigError, match="aliases"):
        load(tmp_path, bomb + GOOD)


@given(st.text(max_size=200))
def test_any_text_loads_or_is_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("config")
    for name in ("x.yaml", "x.json", "x.toml"):
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ConfigError):
            configfile.load(path, PLUGS)


def test_the_schema_accepts_what_loads_and_refuses_typos(tmp_path: Path) -> None:
    schema = configfile.schema(PLUGS)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    tree = yaml.safe_load(GOOD)
    assert not list(validator.iter_errors(tree))
    load(tmp_path, GOOD)
    for section, key in (("calibration", "sampels"), ("engines", "bakend"), ("evaluation", "x")):
        wrong = yaml.safe_load(GOOD)
        wrong[section][key] = 1
        assert list(validator.iter_errors(wrong)), (section, key)
    wrong = yaml.safe_load(GOOD)
    wrong["calibration"]["dataset"]["pth"] = "x"
    assert list(validator.iter_errors(wrong))


@pytest.mark.parametrize("config", sorted(Path("examples").rglob("*.yaml")), ids=str)
def test_shipped_configs_load_and_fit_the_schema(config: Path) -> None:
    configfile.load(config, PLUGS)
    tree = json.loads(json.dumps(yaml.safe_load(config.read_text())))
    assert not list(jsonschema.Draft202012Validator(configfile.schema(PLUGS)).iter_errors(tree))
