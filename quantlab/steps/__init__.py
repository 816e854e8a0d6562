"""The steps of a run, each from what the one before it saved in the run folder."""

from quantlab.steps.build import build
from quantlab.steps.calibrate import calibrate
from quantlab.steps.evaluate import evaluate
from quantlab.steps.job import started
from quantlab.steps.report import report

__all__ = ["build", "calibrate", "evaluate", "report", "started"]
