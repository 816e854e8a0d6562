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
        whole_hash: SHA-256 over these and the samples for fitting.
    """

    samples: int
    data_hash: str
    whole_hash: str


def held_back(job: Job, inputs: Inputs) -> HeldBack:
    """Read the calibration samples.

    Raises:
        DataError: they cannot be read.
    """
    held, samples = Fingerprint(), 0
    for batch in job.held_back(inputs):
        held.add(batch)
        samples += batch.size
    whole = fingerprint(job.fitting(inputs))
    whole.merge(held.total)
    return HeldBack(samples, held.hexdigest(), whole.hexdigest())
