"""Min-max is the largest magnitude, exactly."""

import numpy as np
from hypothesis import given

from quantlab.calibrators.minmax import MinMax
from quantlab.histogram import from_array
from tests.strategies import Floats, activations


@given(activations())
def test_equals_the_largest_magnitude(x: Floats) -> None:
    assert MinMax().threshold(from_array("t", x)) == max(abs(v) for v in x.tolist())


def test_one_outlier_decides() -> None:
    assert MinMax().threshold(from_array("t", np.array([0.5, -0.25, -60.125]))) == 60.125
