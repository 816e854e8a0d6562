"""From what is asked for to Work: open the dataset, look at its first sample, and cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantlab.collect.executor import Executor
from quantlab.collect.plan import plan, probe
from quantlab.collect.work import Work
from quantlab.datasets.base import Batch, Dataset
from quantlab.datasets.batching import PENDING, batch_size, batches, take
from quantlab.errors import CalibrationError, ConfigError, DataError
from quantlab.records import TensorSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        model: the prepared model.
        inputs: of the model.
        tensors: to count.
        dataset: gives the samples.
        samples: places of it to use, the first ones; all if None.
        batch: samples a batch, where the model leaves the choice.
        checkpoint: batches a shard.
        max_memory: bytes that a worker may hold; None for no limit.
    """

    model: Path
    inputs: tuple[TensorSpec, ...]
    tensors: tuple[str, ...]
    dataset: Dataset
    samples: int | None = None
    batch: int = 32
    checkpoint: int = 16
    max_memory: int | None = None


def cut(request: Request, executor: Executor) -> Work:
    """Return the work for ``executor``.

    Raises:
        DataError: the samples cannot be read, or not in parts by an executor that needs that.
        CalibrationError: every sample was left out.
        ConfigError: the memory does not hold the model and its largest tensor, or is not the
            executor's to keep to.
        EngineError: the model cannot be run.
    """
    inputs, budget = request.inputs, request.max_memory
    if budget is not None and (executor.distributed or executor.device != "cpu"):
        raise ConfigError(
            "'calibration.max_memory' is what this process keeps to; leave it out with "
            f"'executor: {{kind: {executor.name}}}'",
            "max_memory",
        )
    size = batch_size(inputs, request.batch)
    fixed = any(not spec.shape or isinstance(spec.shape[0], int) for spec in inputs)
    count, first = _looked_at(request, executor, least=size if fixed else 1)
    probed = probe(
        request.model,
        request.tensors,
        first,
        together=size > 1
        and not fixed
        and all(array.shape[:1] == (1,) for array in first.arrays.values()),
        memory_too=budget is not None,
    )
    planned = plan(
        probed,
        batch=size,
        fixed=fixed,
        cores=executor.cores(),
        budget=budget,
        waiting=PENDING + 2 if _ragged(inputs) else 4,
    )
    shard = size * request.checkpoint
    if fixed and size > 1 and _ragged(inputs):
        # Samples must wait for others of their shape to fill a batch, wherever these are.
        shard = size * -(-count // size)
    return Work(
        model=request.model,
        passes=planned.passes,
        inputs=inputs,
        dataset=request.dataset,
        samples=count,
        batch=size,
        shard=shard,
        shapes=probed.shapes,
        slice=planned.slice,
        lanes=planned.lanes,
        threads=planned.threads,
        expected_peak_bytes=planned.peak_bytes,
    )


def _looked_at(request: Request, executor: Executor, *, least: int) -> tuple[int, Batch]:
    """Return how many places are used, and the first batch of ``least`` samples."""
    inputs = request.inputs
    with request.dataset.open(inputs) as samples:
        count = take(samples, request.samples)
        if executor.distributed and not samples.shardable:
            raise DataError(
                "this dataset cannot be read in parts by several workers; let its function take "
                "'start' and 'stop', or set 'executor: {kind: local}'"
            )
        part = samples.part(0, count)
        first = next(batches(part, inputs, size=least, count=count, empty_ok=True), None)
    if first is None:
        raise CalibrationError("no calibration sample was read: the dataset left out all of them")
    return count, first


def _ragged(inputs: Sequence[TensorSpec]) -> bool:
    """Whether samples of several shapes fit."""
    return any(not isinstance(axis, int) for spec in inputs for axis in spec.shape[1:])
