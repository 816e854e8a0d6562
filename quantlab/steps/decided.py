"""Thresholds by the config's method."""

from collections.abc import Mapping, Sequence

from quantlab.calibrators import CALIBRATORS
from quantlab.collect import gather
from quantlab.config import AUTO
from quantlab.decide import decide
from quantlab.histogram import Histogram
from quantlab.records import TensorThreshold, Thresholds
from quantlab.registry import make
from quantlab.repair.choose import as_before
from quantlab.saved import load
from quantlab.steps.job import Job

FIRST = "mse"
"""What method ``auto`` begins with."""


def decided(
    job: Job,
    tied: Sequence[tuple[str, ...]],
    histograms: Mapping[str, Histogram],
    before: Thresholds | None = None,
) -> dict[str, TensorThreshold]:
    """Return every collected tensor's threshold by the config's method.

    Args:
        job: its config and what was collected.
        tied: groups of tensors with one threshold.
        histograms: of every collected tensor.
        before: what method ``auto`` chose for another form of the model.

    Raises:
        CalibrationError: a tensor has no threshold, or NaN or infinities that are to fail.
    """
    config = job.config.calibration
    if config.nonfinite == "fail":
        how = load(job.file("collection.json"), gather.Collected)
        gather.check_finite(tuple(histograms.values()), how.batch)
    if config.method == AUTO and before is not None:
        return as_before(histograms, before, tied)
    method = FIRST if config.method == AUTO else config.method
    calibrator = make("method", CALIBRATORS, method, config.parameters)
    return decide(histograms, calibrator, method=method, ties=tied)
