"""Whether a model gives the same outputs for the same inputs; without that no error can be told."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from quantlab.engines.ort_session import run
from quantlab.errors import ModelError
from quantlab.graph.view import constant
from quantlab.simulate import Array, Arrays, power_of

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
    | {"Multinomial"}
)
"""Operators that draw numbers; ``prepare`` refuses those that do so in training mode alone."""

ROUNDING = 1e-12
"""Relative power of a difference that the order of sums explains: 120 dB."""

NAMED = 3
"""Nodes that the message names."""


def check_steady(model: ir.Model, compiled: Any, inputs: Arrays) -> None:
    """Run a model twice on one batch.

    Args:
        model: that was compiled.
        compiled: its session.
        inputs: one batch.

    Raises:
        ModelError: an output differs; the message names it and the nodes that may be the cause.
    """
    values = [value for value in model.graph.outputs if not constant(value)]
    names = [str(value.name) for value in values]
    first, second = (run(compiled, names, inputs) for _ in range(2))
    for value in values:
        one, other = first[str(value.name)], second[str(value.name)]
        if one.shape != other.shape:
            raise ModelError(
                f"output {value.name!r} has shape {one.shape} and then {other.shape} for the same "
                f"samples; {_cause(value)}"
            )
        difference = _difference(one, other)
        if difference > 0:
            raise ModelError(
                f"output {value.name!r} differs by up to {difference:.3g} between two runs of the "
                "same samples, so what quantization changes cannot be told from what chance "
                f"changes; {_cause(value)}"
            )


def _difference(one: Array, other: Array) -> float:
    """Return the largest difference; 0 where there is none but rounding."""
    if np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return 0.0
    if power_of(one, other) <= ROUNDING * power_of(one):
        return 0.0
    return float(np.abs(np.subtract(one, other, dtype=np.float64)).max())


def _cause(output: ir.Value) -> str:
    """Say which nodes before an output may be why it differs, and what to do."""
    found = [f"{node.op_type} {node.name!r}" for node in _before(output) if node.op_type in RANDOM]
    if not found:
        return (
            "no node draws random numbers, so the runtime's kernels differ from run to run; "
            "try another version of ONNX Runtime"
        )
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"{', '.join(found[:NAMED])}{more} may be why; export the model without, or replace the "
        "random numbers by an input"
    )


def _before(output: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that an output is made of, those of bodies included, the nearest first."""
    pending, seen = [output], {output}
    while pending:
        node = pending.pop().producer()
        if node is None:
            continue
        for inner in ir.traversal.RecursiveGraphIterator(ir.GraphView((), (), nodes=(node,))):
            yield inner
            read = {value for value in inner.inputs if value is not None} - seen
            seen |= read
            pending.extend(read)
