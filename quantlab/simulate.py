"""The INT8 model computed in floating point, and its error at the network's output.

Weights are what their INT8 stands for and activations go through Q/DQ whose scales are given at run
time, so what INT8 computes is told up to the rounding of sums, on any machine and for any backend.
It costs about what FP32 costs.  ONNX Runtime is kept from forming integer kernels, which on some
CPUs saturate.

The error is ``sum((q - f)**2) / sum(f**2)`` over all judged samples, of each output, f in FP32;
several outputs count alike.  As SQNR it is ``-10 log10`` of that.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantlab.engines.ort_session import CPU, library, loaded, options, run
from quantlab.errors import DataError
from quantlab.graph import model as graph
from quantlab.graph.corrections import NONE, Corrections
from quantlab.graph.insert_qdq import grids, insert_qdq
from quantlab.graph.open_scales import open_scales
from quantlab.graph.placement import Placement
from quantlab.histogram import Histogram
from quantlab.records import Thresholds

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
Batches = Callable[[], Iterator[Arrays]]
"""Begins anew a pass over samples: arrays by input name."""


def session(model: ir.Model) -> Any:
    """Return an ONNX Runtime session that computes ``model`` as it is written, Q/DQ included.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    chosen = options()
    chosen.graph_optimization_level = library().GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.add_session_config_entry("session.disable_quant_qdq", "1")
    # A file, because a serialized model must be under 2 GB.
    with TemporaryDirectory(prefix="quantlab.") as folder:
        path = Path(folder) / "model.onnx"
        graph.save(model, path)
        return loaded(path, chosen, CPU)


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A compiled INT8 model whose activations' scales are given at each run.

    Attributes:
        compiled: ONNX Runtime's session.
        placement: what is quantized.
        policy: by which grids.
        scales: the input that holds each tensor's scale.
        outputs: of the model.
    """

    compiled: Any
    placement: Placement
    policy: str
    scales: Mapping[str, str]
    outputs: tuple[str, ...]

    def run(self, inputs: Arrays, thresholds: Thresholds) -> dict[str, Array]:
        """Return the outputs of one batch.

        Args:
            inputs: of the float model.
            thresholds: of every quantized tensor; whether a tensor is ever negative must be as
                when it was compiled.
        """
        found = grids(self.placement, thresholds, self.policy)
        scales = {name: np.asarray(found[t].scale) for t, name in self.scales.items()}
        return run(self.compiled, self.outputs, {**inputs, **scales})


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """An INT8 model in the making.

    Attributes:
        model: the float model, with the nodes marked that the config gives a type.
        policy: of its placement.
        placement: of this model.
        histograms: of every collected tensor of this model, on the samples for fitting.
        thresholds: of the same tensors.
        corrections: of weights and biases.
    """

    model: ir.Model
    policy: str
    placement: Placement
    histograms: Mapping[str, Histogram]
    thresholds: Thresholds
    corrections: Corrections = NONE

    def int8(self) -> ir.Model:
        """Return the Q/DQ model."""
        return insert_qdq(
            self.model,
            self.placement,
            self.thresholds,
            policy=self.policy,
            corrections=self.corrections,
        )

    def simulated(self) -> Simulation:
        """Compile the draft."""
        opened, scales = open_scales(self.int8())
        outputs = tuple(str(value.name) for value in self.model.graph.outputs)
        return Simulation(session(opened), self.placement, self.policy, scales, outputs)


LOWEST = -200.0
"""dB of an output that is not finite: JSON has no infinity."""

Variant = tuple[Simulation, Thresholds]
"""A candidate: a compiled model with the thresholds that it is run with."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Judges candidates against the FP32 model on the same samples, one batch in memory.

    Attributes:
        compiled: session of the FP32 model.
        batches: the samples.
        outputs: judged outputs.
    """

    compiled: Any
    batches: Batches
    outputs: tuple[str, ...]

    @classmethod
    def make(cls, model: ir.Model, batches: Batches, outputs: Sequence[str] = ()) -> "Judge":
        """Compile the FP32 model.

        Args:
            model: prepared.
            batches: the samples to judge on.
            outputs: names; all of the model's if none.
        """
        names = outputs or [str(value.name) for value in model.graph.outputs]
        return cls(session(model), batches, tuple(names))

    def errors(self, variants: Sequence[Variant]) -> list[float]:
        """Return the relative error of each candidate: 0 is FP32, infinite where NaN comes out.

        Raises:
            DataError: there is no sample, or an output that cannot be compared.
        """
        noise = np.zeros((len(variants), len(self.outputs)))
        power = np.zeros(len(self.outputs))
        for inputs in self.batches():
            wanted = run(self.compiled, self.outputs, inputs)
            power += [power_of(wanted[name]) for name in self.outputs]
            for index, (candidate, thresholds) in enumerate(variants):
                came = candidate.run(inputs, thresholds)
                noise[index] += noise_of(came, wanted, self.outputs)
        return [float(value) for value in relative_errors(noise, power)]


def relative_errors(noise: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the error of each candidate: the mean over outputs that are not all zero.

    Args:
        noise: (candidates, outputs) power of the difference.
        power: (outputs,) of FP32.

    Raises:
        DataError: there is no output to compare with.
    """
    if not (power > 0).any():
        raise DataError(
            "no sample, or outputs of FP32 that are all zero or hold NaN, to judge INT8 on; give "
            "calibration other samples, or a larger 'held_back'"
        )
    relative = noise[:, power > 0] / power[power > 0]
    return np.asarray(np.nan_to_num(relative, nan=math.inf, posinf=math.inf).mean(axis=1))


def decibels(error: float) -> float | None:
    """Return a relative error as SQNR in dB, at least ``LOWEST``; None where there is none."""
    if error == 0:
        return None
    return max(-10 * math.log10(error), LOWEST) if math.isfinite(error) else LOWEST


def gain(before: float, after: float) -> float:
    """Return what a relative error gained in dB: 0 where there was none, infinite where none is."""
    old, new = decibels(before), decibels(after)
    if old is None:
        return 0.0
    return math.inf if new is None else new - old


def noise_of(came: Arrays, wanted: Arrays, names: Sequence[str]) -> list[float]:
    """Return the power of the difference of each named output.

    Raises:
        DataError: one has another shape, because that depends on values.
    """
    for name in names:
        if came[name].shape != wanted[name].shape:
            raise DataError(
                f"output {name!r} has shape {came[name].shape} in INT8 and {wanted[name].shape} in "
                "FP32, so they cannot be compared; name an output whose shape does not depend on "
                "values with 'evaluation: {output: ...}'"
            )
    return [power_of(came[name], wanted[name]) for name in names]


def power_of(values: Array, other: Array | None = None) -> float:
    """Return the sum of squares of ``values``, less ``other``; where both are infinite they agree.

    A mask adds -inf to logits, which is no error; anything else that is not finite is infinite.
    """
    with np.errstate(invalid="ignore"):
        wide = np.subtract(values, 0 if other is None else other, dtype=np.float64).ravel()
        power = float(np.dot(wide, wide))
    if math.isfinite(power):
        return power
    agreed = np.isinf(values) if other is None else values == other
    wide = np.where(agreed.ravel(), 0.0, wide)
    return float(np.dot(wide, wide))
