"""A plan's accuracy on the samples held back: its very model, computed as ONNX says.

ONNX Runtime computes it in floating point, Q/DQ included (simulate.py), so it serves plans of every
backend, and costs a pass over the samples.  FP32 runs once; of its outputs the judged one is kept
on disk, a file a batch, so that one batch is in memory.  An output that is not finite counts as 0
and its plan as broken.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from quantlab.accuracy import evaluate
from quantlab.datasets.base import Array, Batch
from quantlab.engines.base import Runner
from quantlab.engines.ort_session import run
from quantlab.errors import ConfigError, DataError
from quantlab.records import EngineInfo, Precision
from quantlab.registry import nearest
from quantlab.search.target import Target, unlabelled
from quantlab.simulate import session

Passes = Callable[[], Iterator[Batch]]
"""Begins anew a pass over the samples held back."""

ALL_OR_NOTHING = (0.0, 100.0)
"""Scores of a sample that is right or wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Judging:
    """Judges models against FP32 on the same samples.

    Attributes:
        target: what is judged.
        batches: the samples.
        output: that is judged.
        folder: holds FP32's outputs.
        samples: how many.
        step: what one sample is of the metric, where samples are right or wrong and FP32 has any
            right: an error of FP32 against itself is 0 too.
    """

    target: Target
    batches: Passes
    output: str
    folder: Path
    samples: int
    step: float | None

    @classmethod
    def make(
        cls, fp32: ir.Model, batches: Passes, target: Target, *, output: str | None, folder: Path
    ) -> "Judging":
        """Run FP32.

        Args:
            fp32: the prepared model.
            batches: the samples.
            target: what is judged.
            output: that is judged; the model's first if None.
            folder: existing and empty.

        Raises:
            ConfigError: no such output, or labels are missing.
            DataError: no samples, or outputs that the metric cannot judge.
        """
        outputs = [str(value.name) for value in fp32.graph.outputs]
        name = output or outputs[0]
        if name not in outputs:
            raise ConfigError(
                f"evaluation.output: the model has no output {name!r}; {nearest(name, outputs)}"
            )
        compiled, samples = session(fp32), 0
        for number, batch in enumerate(batches()):
            if target.metric.compares == "labels" and batch.labels is None:
                raise unlabelled(target)
            np.save(_file(folder, number), run(compiled, [name], batch.arrays)[name])
            samples += batch.size
        if not samples:
            raise DataError(
                "no sample is held back to judge plans on; give calibration more samples or a "
                "larger 'held_back'"
            )
        rows = _rows(target, batches, _Replayed(name, folder), _Replayed(name, folder))[0]
        binary = rows.shape[1] == 1 and bool(np.isin(rows, ALL_OR_NOTHING).all() and rows.any())
        step = 100 / samples if binary else None
        return cls(target, batches, name, folder, samples, step)

    def score(self, model: ir.Model) -> tuple[float, bool]:
        """Return what the target judges, and whether all outputs were finite."""
        ran = _Simulated(session(model), self.output)
        rows = _rows(self.target, self.batches, _Replayed(self.output, self.folder), ran)
        return self.target.value(*rows), ran.finite


@dataclass(slots=True, eq=False)
class _Simulated:
    """A Runner of ONNX Runtime's session; mutable on purpose: it notes what was not finite."""

    compiled: Any
    output: str
    finite: bool = True

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        made = run(self.compiled, [self.output], inputs)[self.output]
        if not np.isfinite(made).all():
            self.finite = False
            made = np.nan_to_num(made, nan=0, posinf=0, neginf=0)
        return {self.output: made}

    def describe(self) -> EngineInfo:
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class _Replayed:
    """A Runner that gives FP32's outputs again, in the order of the batches."""

    output: str
    folder: Path
    next: int = field(default=0)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:  # noqa: ARG002  as Runner
        found = np.load(_file(self.folder, self.next), allow_pickle=False)
        self.next += 1
        return {self.output: found}

    def describe(self) -> EngineInfo:
        raise NotImplementedError


def _rows(
    target: Target, batches: Passes, fp32: _Replayed, other: _Simulated | _Replayed
) -> tuple[Any, Any]:
    """Return the scores of ``other``, and FP32's where the metric compares with labels."""
    runners: dict[Precision, Runner] = {"fp32": fp32, "int8": other}
    scores = evaluate(runners, batches(), [target.metric], output=other.output)
    rows = scores.rows[target.metric.name]
    return rows["int8"], rows.get("fp32")


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.npy"
