"""Thresholds by the config's method."""

from collections.abc import Mapping, Sequence

from quantlab.calibrators import CALIBRATORS
from quantlab.collect import gather
from quantlab.config import AUTO
from quantlab.decide import decide
from quantlab.histogram import Histogram
from quantlab.records import TensorThreshold
from quantlab.registry import make
from quantlab.saved import load
from quantlab.steps.job import Job

FIRST = "mse"
"""What method ``auto`` begins with, and what a repaired model gets before it is chosen for anew."""


def decided(
    job: Job, tied: Sequence[tuple[str, ...]], histograms: Mapping[str, Histogram]
) -> dict[str, TensorThreshold]:
    """Return every collected tensor's threshold by the config's method.

    Raises:
        CalibrationError: a tensor has no threshold, or NaN or infinities that are to fail.
    """
    config = job.config.calibration
    if config.nonfinite == "fail":
        how = load(job.file("collection.json"), gather.Collected)
        gather.check_finite(tuple(histograms.values()), how.batch)
    method = FIRST if config.method == AUTO else config.method
    calibrator = make("method", CALIBRATORS, method, config.parameters)
    return decide(histograms, calibrator, method=method, ties=tied)
