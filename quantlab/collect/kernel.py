"""The histogram's inner loop, compiled by Numba.

A block of values is gone through three times while it lies in the first-level cache: for its
extremes, for its bin numbers, and to count them.  The compiler vectorises the first two.  It would
not if extremes were sought among floats, whose NaN have no order; among their bits it does, and a
NaN's bits lie beyond infinity's.  A block that holds a NaN, an infinity or a value outside the bins
is left to the caller untouched: that is rare, and keeps these loops simple.

Counting goes to eight tables in turn, so that equal neighbours (the zeros behind a ReLU) do not
wait for each other's increments.  The tables are interleaved: were they one after the other, a
bin's counters would lie multiples of 4096 bytes apart, which processors first take for one address.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from quantlab.histogram import BINS

BLOCK = 2048
"""Values in a block: its values and bin numbers stay in the first-level cache."""

TABLES = 8

Scratch = tuple[NDArray[np.uint32], NDArray[np.uint32]]
"""(BINS, TABLES) tables, zero between calls, and (BLOCK,) bin numbers; one thread's."""

Floats = tuple[NDArray[np.floating], NDArray[np.signedinteger]]
"""(n,) float32 or float64, contiguous, and the same memory as integers of that size."""


def scratch() -> Scratch:
    """Return what ``count`` works in; kept between calls, which are short."""
    return np.zeros((BINS, TABLES), np.uint32), np.empty(BLOCK, np.uint32)


@njit(nogil=True, cache=True)
def count(
    floats: Floats,
    start: int,
    inverse: np.floating,
    counts: NDArray[np.int64],
    seen: NDArray[np.float64],
    scratch: Scratch,
) -> int:  # pragma: no cover - compiled, so that coverage cannot see it run
    """Count ``floats[start:]`` block by block; stop at a block with a value outside the bins.

    Args:
        floats: at most 2**32 values.
        start: first element to count.
        inverse: 1 / bin width, a power of two, in the dtype of the values.
        counts: (BINS,) int64, added to.
        seen: (3,) float64: minimum, maximum and number of zeros, updated.
        scratch: to work in.

    Returns: where it stopped, the number of values or the start of the block that it left alone.
    """
    values, bits = floats
    tables, numbers = scratch  # unsigned: no index is tested for being negative
    minimum, maximum, zeros, top = seen[0], seen[1], 0, 0
    n = values.size
    position = start
    while position < n:
        block = values[position : position + BLOCK]
        size = block.size
        low, high = extremes(block, bits[position : position + BLOCK])
        first, last = abs(low) * inverse, abs(high) * inverse
        if not (first < BINS and last < BINS):  # True for NaN too
            break
        top = max(top, int(first), int(last))
        for i in range(size):
            numbers[i] = np.uint32(abs(block[i]) * inverse)
            zeros += block[i] == 0
        whole = size - size % TABLES
        for i in range(0, whole, TABLES):
            for table in range(TABLES):
                tables[numbers[i + table], table] += 1
        for i in range(whole, size):
            tables[numbers[i], 0] += 1
        minimum = min(minimum, np.float64(low))
        maximum = max(maximum, np.float64(high))
        position += size
    if position > start:
        for i in range(top + 1):
            for table in range(TABLES):
                counts[i] += np.int64(tables[i, table])
                tables[i, table] = 0
    seen[0] = minimum
    seen[1] = maximum
    seen[2] += zeros
    return position


@njit(nogil=True, cache=True)
def count_all(
    floats: Floats,
    places: NDArray[np.int64],
    first: int,
    inverses: NDArray[np.float32],
    totals: tuple[NDArray[np.int64], NDArray[np.float64]],
    scratch: Scratch,
) -> tuple[int, int]:  # pragma: no cover - as above
    """Count tensors that lie in one buffer; stop at one with a value outside the bins.

    Args:
        floats: the buffer, float32.
        places: (tensors, 2) int64, each tensor's first element and number of elements.
        first: tensor to begin with.
        inverses: (tensors,) float32, 1 / bin width.
        totals: (tensors, BINS) counts and (tensors, 3) seen, as for ``count``.
        scratch: to work in.

    Returns: the tensor that it stopped at and its first element not counted; (tensors, 0) if none.
    """
    values, bits = floats
    counts, seen = totals
    for tensor in range(first, len(places)):
        begin, size = places[tensor]
        part = (values[begin : begin + size], bits[begin : begin + size])
        stop = count(part, 0, inverses[tensor], counts[tensor], seen[tensor], scratch)
        if stop < size:
            return tensor, stop
    return len(places), 0


@njit(nogil=True, cache=True)
def extremes(
    values: NDArray[np.floating], bits: NDArray[np.signedinteger]
) -> tuple[np.floating, np.floating]:  # pragma: no cover - as above
    """Return the minimum and the maximum; one of them is NaN if any value is.

    The bits of a float, read as an integer, order as floats do once those of the negative ones,
    but for the sign, are flipped.  Flipping them again gives the float back.
    """
    sign, rest = 8 * bits.itemsize - 1, np.iinfo(bits.dtype).max
    low = high = bits[0] ^ ((bits[0] >> sign) & rest)
    for i in range(bits.size):  # the compiler does not vectorise iteration over the array itself
        ordered = bits[i] ^ ((bits[i] >> sign) & rest)
        low = min(low, ordered)
        high = max(high, ordered)
    ends = np.empty(2, bits.dtype)
    ends[0] = low ^ ((low >> sign) & rest)
    ends[1] = high ^ ((high >> sign) & rest)
    floats = ends.view(values.dtype)
    return floats[0], floats[1]
