"""What speed is measured with: batch sizes, and batches of real samples."""

from collections.abc import Mapping

import numpy as np

from quantlab.datasets.base import Array
from quantlab.datasets.batching import batch_size, batches
from quantlab.steps.job import Inputs, Job


def sizes(job: Job, inputs: Inputs) -> tuple[int, ...]:
    """Return the batch sizes to measure: the config's, or the one that the model allows."""
    asked = job.config.benchmark.batches if job.config.benchmark else (1,)
    return tuple(dict.fromkeys(batch_size(inputs, size) for size in asked))


def batch(job: Job, inputs: Inputs, size: int) -> Mapping[str, Array]:
    """Return a batch of real samples, the first ones again where the dataset has fewer."""
    config = job.config.evaluation or job.config.calibration
    with job.samples(config.dataset, inputs) as samples:
        first = next(batches(samples, inputs, size=size))
    if first.size == size:
        return first.arrays
    again = np.arange(size) % first.size
    return {
        # What has no row for each sample is one array for all of them.
        name: array[again] if array.shape[:1] == (first.size,) else array
        for name, array in first.arrays.items()
    }
