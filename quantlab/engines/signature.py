"""Inputs are checked against the engine's signature before a backend sees them."""

from collections.abc import Mapping, Sequence

import numpy as np

from quantlab.engines.base import Array
from quantlab.errors import EngineError
from quantlab.records import TensorSpec


def fitted(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return the inputs in the order of ``specs``, C-contiguous.

    Raises:
        EngineError: a name, dtype, rank or fixed dimension is not the signature's, or an array
            is empty.
    """
    expected = ", ".join(map(str, specs)) or "no input"
    known = {spec.name for spec in specs}
    for name in inputs:
        if name not in known:
            raise EngineError(f"the engine has no input {name!r}; it takes {expected}")
    for spec in specs:
        if spec.name not in inputs:
            raise EngineError(f"input {spec.name!r} is missing; the engine takes {expected}")
    return {spec.name: _one(inputs[spec.name], spec) for spec in specs}


def _one(value: Array, spec: TensorSpec) -> Array:
    if not isinstance(value, np.ndarray | np.generic):
        raise EngineError(
            f"input {spec.name!r}: expected a NumPy array {spec}, got {type(value).__name__}"
        )
    fits = value.dtype == np.dtype(spec.dtype) and value.ndim == len(spec.shape)
    if not fits or any(
        isinstance(want, int) and want != got
        for want, got in zip(spec.shape, value.shape, strict=True)
    ):
        raise EngineError(
            f"input {spec.name!r}: expected {spec}, got {value.dtype}{list(value.shape)}"
        )
    if value.size == 0:  # OpenVINO would end the process with an arithmetic exception
        raise EngineError(f"input {spec.name!r} is empty: its shape is {list(value.shape)}")
    return np.asarray(value, order="C")


def supported(specs: Sequence[TensorSpec], backend: str) -> tuple[TensorSpec, ...]:
    """Return ``specs`` if every element type is one that NumPy computes with.

    Raises:
        EngineError: strings, bfloat16 or another type that NumPy does not have.
    """
    for spec in specs:
        try:
            known = np.dtype(spec.dtype).kind in "biuf"
        except TypeError:
            known = False
        if not known:
            raise EngineError(
                f"{backend}: {spec.name!r} has element type {spec.dtype}; "
                "an engine's inputs and outputs are booleans, integers or floats"
            )
    return tuple(specs)
