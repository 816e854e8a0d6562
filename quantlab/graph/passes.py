"""What a graph pass is: a function from a model to a changed copy and whether it changed.

A pass never changes its argument: ``copy`` clones nodes and values and shares the weights, which
are never written to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass made.

    Attributes:
        model: a new model, valid ONNX.
        changed: whether it differs from the argument.
    """

    model: ir.Model
    changed: bool


Pass = Callable[[ir.Model], PassResult]


def copy(model: ir.Model) -> ir.Model:
    """Return a model that can be changed without changing ``model``; weights are shared."""
    return model.clone()
