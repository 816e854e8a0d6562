"""The histogram's inner loop, compiled by Numba.

A block of values is first turned into bin numbers in a loop without branches, which the compiler
vectorises, and then counted into four tables in turn, so that equal neighbours (the zeros behind a
ReLU) do not wait for each other's increments.  A block that holds a NaN, an infinity or a value
outside the bins is left to the caller untouched: that is rare, and keeps this loop simple.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from quantlab.histogram import BINS

BLOCK = 4096
"""Values in a block: its values and bin numbers stay in the first-level cache."""

TABLES = 4


@njit(nogil=True, cache=True)
def count(
    values: NDArray[np.floating],
    start: int,
    inverse: np.floating,
    counts: NDArray[np.int64],
    seen: NDArray[np.float64],
) -> int:  # pragma: no cover - compiled, so that coverage cannot see it run
    """Count ``values[start:]`` block by block; stop at a block with a value outside the bins.

    Args:
        values: (n,) float32 or float64, contiguous.
        start: first element to count.
        inverse: 1 / bin width, a power of two, in the dtype of ``values``.
        counts: (BINS,) int64, added to.
        seen: (3,) float64: minimum, maximum and number of zeros, updated.

    Returns: where it stopped, ``len(values)`` or the start of the block that it left alone.
    """
    numbers = np.empty(BLOCK, np.int32)
    tables = np.zeros((TABLES, BINS), np.uint32)
    minimum, maximum, zeros = seen[0], seen[1], 0
    n = values.size
    position = start
    while position < n:
        block = values[position : position + BLOCK]
        size = block.size
        low = block[0]
        high = block[0]
        empty = 0
        outside = 0
        for i in range(size):
            value = block[i]
            number = abs(value) * inverse
            inside = number < BINS  # False for NaN too
            numbers[i] = np.int32(number) if inside else 0
            outside += not inside
            empty += value == 0
            low = value if value < low else low
            high = value if value > high else high
        if outside:
            break
        whole = size - size % TABLES
        for i in range(0, whole, TABLES):
            tables[0, numbers[i]] += 1
            tables[1, numbers[i + 1]] += 1
            tables[2, numbers[i + 2]] += 1
            tables[3, numbers[i + 3]] += 1
        for i in range(whole, size):
            tables[0, numbers[i]] += 1
        minimum = min(minimum, np.float64(low))
        maximum = max(maximum, np.float64(high))
        zeros += empty
        position += size
    for i in range(BINS):
        for table in range(TABLES):
            counts[i] += np.int64(tables[table, i])
    seen[0] = minimum
    seen[1] = maximum
    seen[2] += zeros
    return position
