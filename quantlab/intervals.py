"""95 % intervals by the bootstrap's percentile method.

The items (samples, rounds) are drawn with replacement, ``count`` of ``count``; the statistic of
each draw is computed, and the 2.5 % and 97.5 % quantiles of the draws are the interval (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).  One draw serves every row of the
statistic, so differences and ratios of rows are paired.

Limits: a single item has no spread, so its interval has no width.  With few items the interval is
too narrow: it knows no more of the spread than they show.  It is widened where needed to contain
the value, which the percentiles of a biased statistic may miss.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantlab.measured import Interval

MEMORY = 1 << 22
"""Bytes of one intermediate array: draws are computed in batches of this size."""

ROUNDING = 1e-12
"""Relative: a bound nearer to the value is the value, summed in another order."""

Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From chosen items (draws, count) to (rows, draws)."""


def bootstrap(
    count: int, statistic: Statistic, *, seed: int = 0, resamples: int = 2000, width: int = 1
) -> tuple[Interval, ...]:
    """Return the value of ``statistic`` on all items, a row each, with its 95 % interval.

    Args:
        count: number of items, at least 1.
        statistic: called with indices into the items.
        seed: of the draws; the same seed gives the same intervals.
        resamples: number of draws.
        width: numbers that the statistic gathers an item; keeps the memory bounded.
    """
    from scipy import stats

    items = np.arange(count)
    values = statistic(items[None])[:, 0]
    if count == 1:
        return tuple(Interval(value, value, value) for value in values.tolist())

    def of_draws(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        del axis  # scipy passes -1: the draws' items are last
        return statistic(drawn)

    bounds = stats.bootstrap(
        (items,),
        of_draws,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, MEMORY // (8 * count * width)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = np.minimum(bounds.low, values), np.maximum(bounds.high, values)
    low, high = (np.where(np.isclose(b, values, ROUNDING, 0), values, b) for b in (low, high))
    return tuple(map(Interval, values.tolist(), low.tolist(), high.tolist()))
