"""The steps of a run, each from what the one before it saved in the run folder."""

from quantlab.steps.analyze import SAMPLES, analyze
from quantlab.steps.build import build, check_built
from quantlab.steps.calibrate import calibrate, check_calibrated, prepare_model
from quantlab.steps.evaluate import check_evaluated, check_samples, evaluate
from quantlab.steps.job import started
from quantlab.steps.report import report
from quantlab.steps.trtexec import trtexec

__all__ = [
    "SAMPLES",
    "analyze",
    "build",
    "calibrate",
    "check_built",
    "check_calibrated",
    "check_evaluated",
    "check_samples",
    "evaluate",
    "prepare_model",
    "report",
    "started",
    "trtexec",
]
