"""Which samples choices were judged on: the report tells if the evaluation has the same."""

from dataclasses import dataclass

from quantlab.datasets.fingerprint import Fingerprint, fingerprint
from quantlab.steps.job import Inputs, Job


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The calibration samples that were held back.

    Attributes:
        samples: how many.
        data_hash: SHA-256 over them.
        labelled_hash: the same with their labels.
        whole_hash: SHA-256 over these and the samples for fitting.
    """

    samples: int
    data_hash: str
    labelled_hash: str
    whole_hash: str


def held_back(job: Job, inputs: Inputs) -> HeldBack:
    """Read the calibration samples.

    Raises:
        DataError: they cannot be read.
    """
    held, labelled, samples = Fingerprint(), Fingerprint(labelled=True), 0
    for batch in job.held_back(inputs):
        held.add(batch)
        labelled.add(batch)
        samples += batch.size
    whole = fingerprint(job.fitting(inputs))
    whole.merge(held.total)
    return HeldBack(samples, held.hexdigest(), labelled.hexdigest(), whole.hexdigest())


def recheck(job: Job, step: str, known: HeldBack, inputs: Inputs) -> None:
    """Make a step run again if the samples held back, or their labels, are others."""
    found = job.held_back(inputs)
    job.recheck_samples(step, known.labelled_hash, found, labelled=True)
