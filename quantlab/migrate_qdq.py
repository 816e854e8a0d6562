"""A model that another tool has quantized: is it fit for TensorRT, and what converting it costs.

``inspect`` checks (graph/foreign_qdq.py), ``convert`` converts (graph/convert_qdq.py) and measures
(``qdq_cost``).  A model that is fit is built as it is: nothing of it is calibrated again.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from quantlab.datasets.npz import Npz
from quantlab.errors import ModelError
from quantlab.graph import model as graph
from quantlab.graph.convert_qdq import convert as converted
from quantlab.graph.foreign_qdq import Finding, check
from quantlab.graph.qdq_points import quantized, settle
from quantlab.progress import Progress
from quantlab.qdq_cost import Cost, measure, samples_of


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a quantized model.

    Attributes:
        path: its file.
        nodes: how many of its nodes quantize or compute in integers.
        findings: what TensorRT would refuse or misread; empty if it is fit.
    """

    path: Path
    nodes: int
    findings: tuple[Finding, ...]

    @property
    def convertible(self) -> bool:
        """Whether every finding can be converted."""
        return all(finding.convertible for finding in self.findings)

    def require_fit(self) -> None:
        """Raise ModelError, naming the first places, if TensorRT would not take it as it is."""
        if not self.findings:
            return
        remedy = (
            f"convert it with 'quantlab migrate {self.path} --convert'"
            if self.convertible
            else next(f.remedy for f in self.findings if not f.convertible)
        )
        raise ModelError(
            f"{self.path}: TensorRT does not take it as it is: {len(self.findings)} findings, the "
            f"first is {self.findings[0]}; {remedy}"
        )


@dataclass(frozen=True, slots=True)
class Conversion:
    """What converting a model did.

    Attributes:
        model: file that was converted.
        findings: what was converted.
        cost: what it costs.
    """

    model: str
    findings: tuple[Finding, ...]
    cost: Cost


def inspect(path: Path) -> tuple[Inspection, ir.Model]:
    """Check a model that has Q/DQ of its own; return what was found, and it settled.

    Raises:
        ModelError: it cannot be read, or is not quantized.
    """
    model = graph.load(path)
    nodes = quantized(model)
    if not nodes:
        raise ModelError(
            f"{path} is not quantized, so there is nothing to check; give its calibration cache "
            "too ('quantlab migrate OLD.cache MODEL.onnx'), or calibrate it ('quantlab init')"
        )
    settled = settle(model)
    return Inspection(path, len(nodes), check(settled)), settled


def convert(
    found: Inspection, model: ir.Model, samples: Path | None, progress: Progress
) -> tuple[Conversion, ir.Model]:
    """Convert every finding and measure what that costs; return that, and the converted model.

    Args:
        found: of ``inspect``.
        model: of ``inspect``; stays as it is.
        samples: .npz with an array for each input; without it less is known of the cost.
        progress: receives what is said.

    Raises:
        ModelError: a finding cannot be converted; says which and why.
        DataError: the samples do not fit the model.
        EngineError: ONNX Runtime cannot run it.
    """
    made = converted(model, found.findings)  # refuses before samples are read
    given = () if samples is None else samples_of(Npz(samples), model)
    cost = measure(model, found.findings, given, progress=progress)
    return Conversion(str(found.path), found.findings, cost), made
