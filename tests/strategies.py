"""Shared Hypothesis strategies: every kind of number, array and histogram that can come in."""

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantlab.histogram import Histogram, from_array

Floats = NDArray[np.float32]

SHAPES = ("normal", "relu", "laplace", "uniform", "softmax", "few values", "constant")
"""Kinds of activation that ``activations`` draws."""


def magnitudes() -> st.SearchStrategy[float]:
    """Positive float32 values: ordinary, powers of two, subnormal and huge ones."""
    return st.one_of(
        st.floats(2**-10, 2**10, width=32),
        st.integers(-149, 127).map(lambda power: float(2.0**power)),
        st.floats(2**-149, 2**-126, width=32),
        st.floats(2**100, float(np.finfo(np.float32).max), width=32),
    )


def numbers() -> st.SearchStrategy[float]:
    """Any float32: magnitudes of either sign, both zeros, NaN and the infinities."""
    special = st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf")])
    return st.one_of(special, magnitudes(), magnitudes().map(lambda x: -x), st.floats(width=32))


def arrays(max_samples: int = 8, max_elements: int = 6) -> st.SearchStrategy[Floats]:
    """(samples, elements) float32 of any ``numbers``; either axis may be empty."""
    shape = st.tuples(st.integers(0, max_samples), st.integers(0, max_elements))
    return hnp.arrays(np.float32, shape, elements=numbers(), fill=st.nothing())


@st.composite
def activations(draw: st.DrawFn, max_size: int = 3000) -> Floats:
    """(n,) float32 as a network makes them, of a drawn shape, size, seed and scale; not all 0."""
    shape = draw(st.sampled_from(SHAPES))
    size = draw(st.integers(1, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    normal = rng.normal(size=size)
    values = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "laplace": rng.laplace(size=size),
        "uniform": rng.uniform(-1, 1, size),
        "softmax": np.exp(6 * normal - 12),
        "few values": rng.choice(rng.normal(size=4), size),
        "constant": np.full(size, normal[0]),
    }[shape]
    values[-1] = values[-1] or 1.0
    return (values * draw(st.sampled_from([1.0, 1e-20, 3e-3, 1e20]))).astype(np.float32)


def histograms() -> st.SearchStrategy[Histogram]:
    """Histograms of at least one element that is not 0, most of them as networks make them."""
    drawn = st.lists(st.one_of(st.just(0.0), magnitudes()), max_size=12)
    few = st.tuples(drawn, magnitudes()).map(lambda two: np.array([*two[0], two[1]], np.float32))
    arrays_of_values = st.one_of(activations(), few)
    counted = arrays_of_values.map(lambda values: from_array("t", values))
    return st.builds(many_times, counted, st.sampled_from([1, 1, 1_000_000]))


def many_times(histogram: Histogram, factor: int) -> Histogram:
    """Return the histogram of ``factor`` copies of the same elements."""
    return replace(histogram, counts=histogram.counts * factor, zeros=histogram.zeros * factor)


def scaled(histogram: Histogram, power: int) -> Histogram:
    """Return the histogram of the same elements times ``2**power``."""
    return replace(
        histogram,
        exponent=histogram.exponent + power,
        minimum=float(np.ldexp(histogram.minimum, power)),
        maximum=float(np.ldexp(histogram.maximum, power)),
    )
