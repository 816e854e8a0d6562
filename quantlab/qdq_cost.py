"""What converting another tool's Q/DQ costs, measured with ONNX Runtime.

The converted model is compared with the model as it was, which ONNX Runtime computes as ONNX means
it: for each converted tensor alone, for all together, and for what TensorRT would make of the model
unconverted where it misreads it.  Without samples what is known without running is left: how much
wider an activation's steps get, and the SQNR of weights that are stored again.

Units: SQNR in dB, +-150 at most, of the output that suffers most; a growth is new step over old.
Limits: at most SAMPLES samples.  The outputs of the FP32 model are not known here, so this is what
the conversion changes, not what quantizing cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from quantlab.datasets.base import Dataset
from quantlab.datasets.batching import batch_size, batches
from quantlab.engines.base import Array
from quantlab.engines.ort_session import run, session
from quantlab.errors import DataError
from quantlab.graph import model as graph
from quantlab.graph.convert_qdq import Change, as_tensorrt_reads, changes, convert
from quantlab.graph.foreign_qdq import Finding
from quantlab.metrics.arrays import decibels
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.sqnr import Sqnr
from quantlab.progress import Progress, Silent

SAMPLES = 64
"""Samples that are run; each converted tensor takes a pass over them."""

BATCH = 8

Samples = Sequence[Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a model's outputs are from another's, at the output that is furthest.

    Attributes:
        output: its name.
        sqnr_db, cosine: over all samples.
    """

    output: str
    sqnr_db: float
    cosine: float


@dataclass(frozen=True, slots=True)
class TensorCost:
    """What converting one tensor costs.

    Attributes:
        tensor: its name.
        rules: what was found there.
        growth: new step over old step.
        relu: whether a Relu was written before it.
        weights_sqnr_db: of weights that are stored again; None for activations and biases.
        alone: the outputs when nothing else is converted; None without samples.
    """

    tensor: str
    rules: tuple[str, ...]
    growth: float
    relu: bool
    weights_sqnr_db: float | None
    alone: Difference | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What converting a model costs.

    Attributes:
        samples: how many were run; 0 if none were given.
        tensors: in graph order.
        together: the outputs of the converted model; None without samples.
        unconverted: the outputs as TensorRT would compute them from the model as it was, where
            it would take UINT8 for INT8; None without samples or where it would not.
    """

    samples: int
    tensors: tuple[TensorCost, ...]
    together: Difference | None
    unconverted: Difference | None


def samples_of(dataset: Dataset, model: ir.Model) -> Samples:
    """Return the first SAMPLES samples of a dataset as batches.

    Raises:
        DataError: they do not fit the model, or there is none.
    """
    inputs = graph.inputs(model)
    size = batch_size(inputs, BATCH)
    with dataset.open(inputs) as samples:
        count = min(len(samples), SAMPLES) // size * size or len(samples)
        found = batches(samples.part(0, count), inputs, size=size, count=count)
        return [batch.arrays for batch in found]


def measure(
    model: ir.Model,
    findings: Sequence[Finding],
    given: Samples = (),
    *,
    progress: Progress | None = None,
) -> Cost:
    """Return what converting ``findings`` costs.

    Args:
        model: settled; stays as it is.
        findings: all convertible.
        given: batches to run; none for what is known without running.
        progress: receives what is said.

    Raises:
        EngineError: ONNX Runtime cannot run the model.
        DataError: an output holds NaN or infinities.
    """
    changed = changes(model, findings)
    rules = {
        change.tensor: tuple(f.rule for f in findings if f.tensor == change.tensor)
        for change in changed
    }
    compare = _Compare(model, given) if given else None
    alone: dict[str, Difference] = {}
    if compare is not None:
        total = len(changed)
        with (progress or Silent()).track("converting", total=total, unit="tensor") as advance:
            for done, change in enumerate(changed, start=1):
                own = [finding for finding in findings if finding.tensor == change.tensor]
                alone[change.tensor] = compare(convert(model, own))
                advance(done)
    misread = compare is not None and "unsigned" in {finding.rule for finding in findings}
    return Cost(
        samples=compare.samples if compare else 0,
        tensors=tuple(
            TensorCost(
                change.tensor,
                rules[change.tensor],
                change.growth,
                change.relu,
                _weights_sqnr(change),
                alone.get(change.tensor),
            )
            for change in changed
        ),
        together=compare(convert(model, findings)) if compare else None,
        unconverted=compare(as_tensorrt_reads(model)) if compare and misread else None,
    )


class _Compare:
    """Runs models on the same samples and compares them with the first."""

    def __init__(self, model: ir.Model, given: Samples) -> None:
        self._given = given
        self._expected = _outputs(model, given)
        floats = {n: a for n, a in self._expected.items() if a.dtype.kind == "f" and a.size}
        if not floats:
            raise DataError("the model has no output in floating point that could be compared")
        self._floats = tuple(floats)
        self.samples = len(next(iter(floats.values())))

    def __call__(self, model: ir.Model) -> Difference:
        """Return how far ``model`` is from the first, at its worst output."""
        found = _outputs(model, self._given)
        each = [self._one(name, found[name]) for name in self._floats]
        return min(each, key=lambda difference: difference.sqnr_db)

    def _one(self, name: str, got: Array) -> Difference:
        sqnr, cosine = Sqnr(), Cosine()
        expected = self._expected[name]
        return Difference(
            name,
            float(sqnr.value(sqnr.scores(got, expected))),
            float(cosine.value(cosine.scores(got, expected))),
        )


def _outputs(model: ir.Model, given: Samples) -> dict[str, Array]:
    """Return a model's outputs over all batches, computed node by node."""
    names = [str(value.name) for value in model.graph.outputs]
    with TemporaryDirectory(prefix="quantlab.") as folder:
        path = Path(folder) / "model.onnx"
        graph.save(model, path)
        opened = session(path, optimize=False)
        parts = [run(opened, names, batch) for batch in given]
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in names}


def _weights_sqnr(change: Change) -> float | None:
    if change.signal == 0 and change.noise == 0:
        return None
    return float(decibels(np.asarray(change.signal), np.asarray(change.noise)))
