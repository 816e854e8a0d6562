"""Whole runs with method auto and repairs: what is held back, kept, told and made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantlab as ql
from quantlab import manifest
from quantlab.saved import load
from quantlab.steps.repair import Outcome
from tests.runs import FAST, SAMPLES, configured, quantlab, samples, workspace

AUTO = {**FAST, "calibration.method": "auto"}


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def test_auto_judges_on_samples_that_collecting_does_not_see(tmp_path: Path) -> None:
    run = ql.run(workspace(tmp_path, AUTO))
    held = SAMPLES // 4
    assert run.report.calibration.samples == SAMPLES - held
    found = run.report.repair
    assert found is not None
    assert found.held_back == held
    assert [t.what for t in found.trials if t.kept]
    assert found.after_db is not None
    assert found.after_db >= max(t.after_db or 0.0 for t in found.trials[:6])
    methods = {row.method for row in run.report.tensors}
    assert methods <= {t.what.removesuffix(" for every tensor") for t in found.trials} | {"tied"}


def test_the_same_command_does_nothing_again(tmp_path: Path) -> None:
    config = workspace(tmp_path, AUTO)
    ql.calibrate(config)
    before = facts(tmp_path / "run")["steps"]
    ql.calibrate(config)
    assert facts(tmp_path / "run")["steps"] == before
    ql.build(config)


def test_another_sample_held_back_is_another_choice(tmp_path: Path) -> None:
    config = workspace(tmp_path, AUTO)
    ql.calibrate(config)
    before = facts(tmp_path / "run")["steps"]
    arrays = dict(np.load(tmp_path / "calib.npz"))
    arrays["x"][-1] = samples(seed=9, count=1)[0]
    np.savez(tmp_path / "calib.npz", **arrays)
    ql.calibrate(config)
    after = facts(tmp_path / "run")["steps"]
    assert after["collect"] == before["collect"], "no sample for fitting changed"
    assert after["repair"] != before["repair"]


def test_a_choice_that_let_nan_pass_is_made_again_when_nan_is_to_fail(tmp_path: Path) -> None:
    config = workspace(tmp_path, {**AUTO, "calibration.nonfinite": "ignore"})
    ql.calibrate(config)
    before = facts(tmp_path / "run")["steps"]
    configured(tmp_path, AUTO)
    ql.calibrate(config)
    assert facts(tmp_path / "run")["steps"]["repair"] != before["repair"]


def test_methods_are_tried_on_a_tuned_run(tmp_path: Path) -> None:
    config = workspace(tmp_path, AUTO)
    ql.calibrate(config)
    outcome = quantlab("calibrate", "--from", tmp_path / "run", "--method", "minmax")
    assert outcome.code == 0, outcome.err
    kept = manifest.load(tmp_path / "run" / "methods" / "minmax.json").knobs
    assert kept["held_back"] == 0.25


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"calibration.samples": 1}, "1 calibration samples leave none for fitting"),
        ({"calibration.held_back": 1.0}, "held_back"),
        ({"calibration.percentile": 99.0}, "method 'auto' has no parameter 'percentile'"),
        ({"evaluation.output": "nope"}, "evaluation.output: the model has no output 'nope'"),
        ({"repair": ["equalise"]}, "unknown repair 'equalise'; did you mean 'equalize'?"),
        ({"repair": "everything"}, "repair"),
        ({"search": True}, "'search: true' needs a target for the accuracy"),
        ({"search": True, "targets": {"speedup": 1.5}}, "needs a target for the accuracy"),
        ({"search": True, "targets": {"top1_drop": "half a point"}}, "targets.top1_drop"),
        ({"search": True, "targets": {"top1_dorp": 0.5}}, "did you mean 'top1_drop'?"),
    ],
)
def test_what_cannot_be_done_is_exit_2(
    changes: dict[str, object], expected: str, tmp_path: Path
) -> None:
    outcome = quantlab("run", workspace(tmp_path, {**AUTO, **changes}))
    assert outcome.code == 2
    assert expected in outcome.err


def test_what_is_left_is_a_record(tmp_path: Path) -> None:
    config = workspace(tmp_path, AUTO)
    ql.calibrate(config)
    found = load(tmp_path / "run" / "repair.json", Outcome)
    assert found.model == "prepared.onnx"
    assert found.held_back.data_hash != found.held_back.whole_hash
    configured(tmp_path, {**FAST, "calibration.held_back": 0.5, "calibration.method": "auto"})
    ql.calibrate(config)
    assert load(tmp_path / "run" / "repair.json", Outcome).found.held_back == SAMPLES // 2


def test_what_is_not_asked_for_any_more_is_removed(tmp_path: Path) -> None:
    config = workspace(tmp_path, AUTO)
    ql.calibrate(config)
    configured(tmp_path, FAST)
    ql.calibrate(config)
    assert not (tmp_path / "run" / "repair.json").exists()
    assert "repair" not in facts(tmp_path / "run")["steps"]


def test_other_labels_are_another_evaluation(tmp_path: Path) -> None:
    config = workspace(tmp_path, FAST)
    first = ql.run(config).report.engines[0].accuracy["top1"].value
    arrays = dict(np.load(tmp_path / "eval.npz"))
    arrays["labels"] = (arrays["labels"] + 1) % 8
    np.savez(tmp_path / "eval.npz", **arrays)
    again = ql.run(config).report.engines[0].accuracy["top1"].value
    assert (first, again) == (100.0, 0.0)
