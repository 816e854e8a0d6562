"""A plan's speed from its multiplications, where its engine cannot be run.

A layer takes ``macs * batch / (RATE * FASTER[type]) + FIXED``, an engine the sum over its layers
with constant weights; a layer that leaves INT8 takes FIXED once more, for the conversions around
it.  FASTER is what tensor cores do from TF32 to FP16 to INT8 ("NVIDIA A100 Tensor Core GPU
Architecture", 2020, table 1); RATE and FIXED are those of a middling GPU, and stand for no machine.

Limits: plans of one network can be ranked, no latency be foretold: memory, fusion and what has no
weights are left out.
"""

from collections.abc import Mapping

from quantlab.graph.pins import Float
from quantlab.records import Precision
from quantlab.search.base import Candidate, Latency
from quantlab.search.models import Made

RATE = 5e12
"""Multiply-accumulates a second in FP32."""

FASTER: Mapping[Precision, float] = {"fp32": 1.0, "fp16": 2.0, "int8": 4.0}
"""Times RATE."""

FIXED = 3e-3
"""ms that a layer takes beside its multiplications."""


def modelled(made: Made, candidate: Candidate, *, around: Float, batch: int) -> Latency:
    """Return a plan's modelled latency, with the times of its layers and without an interval.

    Args:
        made: the plan's model.
        candidate: that it was made for.
        around: type of what INT8 leaves in floating point.
        batch: samples an inference.
    """
    rest: Precision = around if candidate.precision == "int8" else candidate.precision
    floats, layers = dict(made.floats), {}
    for node, count in made.macs.items():
        kind = "int8" if node in made.integers else floats.get(node, rest)
        conversion = FIXED if candidate.precision == "int8" and node in floats else 0.0
        layers[node] = 1e3 * count * batch / (RATE * FASTER[kind]) + FIXED + conversion
    ms = sum(layers.values())
    return Latency(ms, ms, ms, "modelled", layers)
