"""Histograms of the same activations as each tool would make them, for the search alone."""

from collections.abc import Iterator
from math import frexp
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantlab.histogram import BINS

PEER_BINS = 2048
MOST = 12
"""Tensors that are searched, evenly spread over the model's: peers take seconds for each."""

BATCH = 16


def histograms(model: Path, given: str, images: NDArray[np.float32]) -> dict[str, NDArray]:  # type: ignore[type-arg]  # names are of strings, the rest are numbers
    """Return arrays over the searched tensors (n,), for ``numpy.savez``.

    ``names`` (n,); ``ranges`` (n, 2) smallest and largest element; ``quantlab`` (n, 4096) and
    ``zeros`` (n,), as ``quantlab.histogram`` says, of width ``2**exponents`` (n,); ``signed``
    (n, 2048) over ``edges`` (n, 2049) from -amax to amax; ``absolute`` (n, 2048) from 0 to amax
    over ``absolute_edges`` (n, 2049).
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = _spread([output.name for output in session.get_outputs()])

    def activations() -> Iterator[list[NDArray[np.float32]]]:
        for start in range(0, len(images), BATCH):
            yield [x.ravel() for x in session.run(names, {given: images[start : start + BATCH]})]

    ends = [[(x.min(), x.max()) for x in batch] for batch in activations()]
    lowest, highest = np.array(ends).transpose(2, 0, 1)  # each (batches, tensors)
    ranges = np.stack([lowest.min(axis=0), highest.max(axis=0)], axis=1)
    amax = np.abs(ranges).max(axis=1)
    exponents = np.array([frexp(a)[1] for a in amax]) - (BINS.bit_length() - 1)
    counts = {
        "quantlab": np.zeros((len(names), BINS), np.int64),
        "signed": np.zeros((len(names), PEER_BINS), np.int64),
        "absolute": np.zeros((len(names), PEER_BINS), np.int64),
        "zeros": np.zeros(len(names), np.int64),
    }
    for batch in activations():
        for index, x in enumerate(batch):
            top, magnitude = float(amax[index]), np.abs(x)
            bins = np.ldexp(magnitude, -exponents[index]).astype(np.int64)
            counts["quantlab"][index] += np.bincount(bins, minlength=BINS)
            counts["signed"][index] += np.histogram(x, PEER_BINS, (-top, top))[0]
            counts["absolute"][index] += np.histogram(magnitude, PEER_BINS, (0.0, top))[0]
            counts["zeros"][index] += len(x) - np.count_nonzero(x)
    return counts | {
        "names": np.array(names),
        "ranges": ranges,
        "exponents": exponents,
        "edges": np.linspace(-amax, amax, PEER_BINS + 1, dtype=np.float32, axis=1),
        "absolute_edges": np.linspace(0 * amax, amax, PEER_BINS + 1, dtype=np.float32, axis=1),
    }


def _spread(names: list[str]) -> list[str]:
    """Return at most MOST, the first and the last among them."""
    places = np.unique(np.linspace(0, len(names) - 1, MOST).round().astype(int))
    return [names[place] for place in places]
