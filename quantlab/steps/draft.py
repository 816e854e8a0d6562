"""The INT8 model as calibration and repair left it, before the search takes layers out."""

from quantlab.simulate import Draft
from quantlab.steps.calibrate import cached_thresholds, thresholds
from quantlab.steps.job import Job
from quantlab.steps.placing import placements
from quantlab.steps.repair import corrections, histograms, int8_source


def draft(job: Job) -> Draft:
    """Return the draft that the run folder holds.

    Raises:
        CacheError: the calibration cache is not that of this model and calibration.
    """
    model = int8_source(job)
    placed = placements(job, model)
    counted = histograms(job)
    found = thresholds(job, placed, counted) | cached_thresholds(job, model)
    return Draft(model, job.policy, placed[job.policy], counted, found, corrections(job))
