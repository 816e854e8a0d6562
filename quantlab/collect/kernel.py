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


@njit(nogil=True, cache=True)
def count(
    values: NDArray[np.floating],
    bits: NDArray[np.signedinteger],
    start: int,
    inverse: np.floating,
    counts: NDArray[np.int64],
    seen: NDArray[np.float64],
) -> int:  # pragma: no cover - compiled, so that coverage cannot see it run
    """Count ``values[start:]`` block by block; stop at a block with a value outside the bins.

    Args:
        values: (n,) float32 or float64, contiguous.
        bits: ``values`` viewed as integers of the same size.
        start: first element to count.
        inverse: 1 / bin width, a power of two, in the dtype of ``values``.
        counts: (BINS,) int64, added to.
        seen: (3,) float64: minimum, maximum and number of zeros, updated.

    Returns: where it stopped, ``len(values)`` or the start of the block that it left alone.
    """
    numbers = np.empty(BLOCK, np.uint32)  # unsigned: no index is tested for being negative
    tables = np.zeros((BINS, TABLES), np.uint32)
    minimum, maximum, zeros = seen[0], seen[1], 0
    n = values.size
    position = start
    while position < n:
        block = values[position : position + BLOCK]
        size = block.size
        low, high = extremes(block, bits[position : position + BLOCK])
        if not (abs(low) * inverse < BINS and abs(high) * inverse < BINS):  # True for NaN too
            break
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
    for i in range(BINS):
        for table in range(TABLES):
            counts[i] += np.int64(tables[i, table])
    seen[0] = minimum
    seen[1] = maximum
    seen[2] += zeros
    return position


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
