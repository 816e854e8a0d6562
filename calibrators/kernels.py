"""The calibrators' inner loops, compiled by Numba.

The formulas are derived in ``entropy`` and ``quality``, which import this module when they first
need it: Numba takes a second to load.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def divergences(
    counts: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:  # pragma: no cover - compiled, so that coverage cannot see it run
    """Return the divergence in nats of every candidate m = levels .. bins.

    Args:
        counts: (bins,) int64, bins >= levels, the last one not 0.
        levels: number of levels that Q is merged to.

    Returns:
        (bins - levels + 1,) float64; infinite where the candidate's last bin is empty.
    """
    bins = counts.size
    total = counts.sum()
    mass = np.zeros(bins + 1, np.int64)  # integers: the difference of two is exact
    filled = np.zeros(bins + 1, np.int64)
    entropy = np.zeros(bins + 1)
    for j in range(bins):
        p = counts[j] / total
        mass[j + 1] = mass[j] + counts[j]
        filled[j + 1] = filled[j] + (p > 0)
        entropy[j + 1] = entropy[j] + (p * math.log(p) if p > 0 else 0.0)
    terms = level_terms(mass, filled, levels)
    result = np.full(bins - levels + 1, np.inf)
    for m in range(levels, bins + 1):
        if counts[m - 1] == 0:
            continue
        short, rest = m // levels, m % levels
        length, start, carry, spread = 0, 0, 0, 0.0
        for _ in range(levels):  # border k is ceil(k * m / levels), without the division
            start += length
            carry += rest
            length = short
            if carry > 0:
                length += 1
                carry -= levels
            spread += terms[length, start]
        outliers = (total - mass[m]) / total
        last = counts[m - 1] / total + outliers
        level = (mass[m] - mass[start]) / total / (filled[m] - filled[start])
        cross = spread + outliers * math.log(level)
        kept = math.log(mass[m] / total)
        result[m - levels] = entropy[m - 1] + last * math.log(last) - cross + kept
    return result


@njit(nogil=True, cache=True)
def level_terms(
    mass: NDArray[np.int64], filled: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:  # pragma: no cover - compiled, so that coverage cannot see it run
    """Return ``s log(s / n)`` of the levels of each length and start that occur.

    Args:
        mass: (bins + 1,) int64 cumulative counts; s is a share of the last.
        filled: (bins + 1,) int64 cumulative number of bins that are not empty.
        levels: number of levels; a level of length n only occurs while m < levels * (n + 1).

    Returns:
        (longest + 1, bins + 1) float64 by length and start; 0 where nothing was computed.
    """
    bins = mass.size - 1
    longest = bins // levels + 1
    terms = np.zeros((longest + 1, bins + 1))
    for length in range(1, longest + 1):
        for start in range(min(bins, levels * (length + 1)) - length + 1):
            n = filled[start + length] - filled[start]
            if n > 0:
                s = (mass[start + length] - mass[start]) / mass[bins]
                terms[length, start] = s * math.log(s / n)
    return terms


@njit(nogil=True, cache=True)
def captured(
    counts: NDArray[np.float64], steps: NDArray[np.float64], levels: int
) -> NDArray[np.float64]:  # pragma: no cover - compiled, so that coverage cannot see it run
    """Return ``2 s sum_k G(b_k)`` of each step: what the grid takes off the sum of squares.

    Args:
        counts: (bins,) float64, evenly spread over bins of width 1.
        steps: (n,) float64 in bins, > 0.
        levels: borders to sum over.

    Returns:
        (n,) float64, in squared bins.
    """
    bins = counts.size
    above = np.zeros(bins + 1)  # elements from edge i on
    excess = np.zeros(bins + 1)  # G at edge i
    for i in range(bins - 1, -1, -1):
        above[i] = above[i + 1] + counts[i]
        excess[i] = excess[i + 1] + above[i + 1] + 0.5 * counts[i]
    result = np.zeros(steps.size)
    for n in range(steps.size):
        total = 0.0
        for k in range(levels):
            border = (k + 0.5) * steps[n]
            if border >= bins:
                break
            i = int(border)
            part = i + 1 - border
            total += excess[i + 1] + part * (above[i + 1] + 0.5 * part * counts[i])
        result[n] = 2 * steps[n] * total
    return result
