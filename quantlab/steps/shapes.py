"""The shapes that an engine has to take, from the config's batch sizes and the calibration samples.

The batch axis goes from 1 to the largest batch of the config.  Any other open axis spans what the
calibration samples show; they are read for it only where there is one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from quantlab.datasets.base import Array
from quantlab.engines.base import ShapeRange
from quantlab.records import TensorSpec
from quantlab.steps.job import Inputs, Job

Shape = tuple[int, ...]


def shapes(job: Job, inputs: Inputs) -> dict[str, ShapeRange]:
    """Return the range of each input that has an open axis.

    Raises:
        DataError: the samples cannot be read.
    """
    open_inputs = [spec for spec in inputs if any(not isinstance(d, int) for d in spec.shape)]
    if not open_inputs:
        return {}
    largest = _largest(job)
    seen: dict[str, Counter[Shape]] = {spec.name: Counter() for spec in open_inputs}
    for arrays in calibration_batches(job, inputs):
        for spec in open_inputs:
            samples, *rest = arrays[spec.name].shape
            if _grows(spec):
                seen[spec.name][largest, *rest] += samples
            else:
                seen[spec.name][samples, *rest] += 1
        if all(isinstance(d, int) for spec in open_inputs for d in spec.shape[1:]):
            break  # the batch axis alone is open: one batch shows the others
    return {spec.name: _range(spec, seen[spec.name]) for spec in open_inputs}


def calibration_batches(job: Job, inputs: Inputs) -> Iterator[Mapping[str, Array]]:
    """Yield the calibration samples in batches of the config's size."""
    for batch in job.batches(job.config.calibration, inputs):
        yield batch.arrays


def _largest(job: Job) -> int:
    config = job.config
    asked = [config.calibration.batch]
    asked += [config.evaluation.batch] if config.evaluation else []
    asked += config.benchmark.batches if config.benchmark else []
    return max(asked)


def _grows(spec: TensorSpec) -> bool:
    """Whether an input has a batch axis that is open."""
    return not isinstance(spec.shape[0], int)


def _range(spec: TensorSpec, seen: Counter[Shape]) -> ShapeRange:
    """Return the least, the commonest and the largest of each axis; a batch is as small as 1."""
    usual = seen.most_common(1)[0][0]
    least = [min(axis) for axis in zip(*seen, strict=True)]
    most = [max(axis) for axis in zip(*seen, strict=True)]
    if _grows(spec):
        least[0] = 1
    return ShapeRange(tuple(least), usual, tuple(most))
