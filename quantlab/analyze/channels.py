"""Largest magnitude of each channel of an array that is at hand.

Limits: which axis the channels are on is told by the node that reads a tensor, not by its shape.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantlab.graph.view import CONVOLUTIONS, IMAGE_RANK, PRODUCTS
from quantlab.simulate import Array


def channel_axis(op: str, rank: int) -> int:
    """Return the axis of the channels of a tensor that a node of type ``op`` reads or makes."""
    image = op in CONVOLUTIONS or (rank == IMAGE_RANK and op not in PRODUCTS)
    return 1 if image and rank > 1 else rank - 1


def channel_amax(values: Array, axis: int) -> NDArray[np.float64]:
    """Return the largest magnitude of each index of ``axis``, (channels,)."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    highest, lowest = values.max(axis=others, initial=0), values.min(axis=others, initial=0)
    return np.asarray(np.maximum(highest, -lowest), np.float64)


def joined(
    known: NDArray[np.float64] | None,
    new: NDArray[np.float64],
    how: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return what several batches say of the channels, by ``how``.

    Empty where their number changes from batch to batch: that axis holds no channels.
    """
    if known is None:
        return new
    return how(known, new) if known.shape == new.shape else np.zeros(0)
