"""Calibrators: pure functions from a histogram to a clipping threshold, by name.

To add one: a frozen dataclass in a file of its own, and a line in ``CALIBRATORS``.
"""

if "." not in __name__:
    raise ImportError(
        "this folder is installed as quantlab.calibrators: import that, and keep the checkout's "
        "root off sys.path (use the pytest script, or PYTHONSAFEPATH=1)"
    )

from quantlab.calibrators.base import Calibrator
from quantlab.calibrators.entropy import Entropy
from quantlab.calibrators.minmax import MinMax
from quantlab.calibrators.minmax_mean import MinMaxMean
from quantlab.calibrators.mse import Mse
from quantlab.calibrators.percentile import Percentile

CALIBRATORS: dict[str, type[Calibrator]] = {
    "entropy": Entropy,
    "minmax": MinMax,
    "minmax_mean": MinMaxMean,
    "percentile": Percentile,
    "mse": Mse,
}

PER_BATCH = frozenset({"minmax_mean"})
"""Methods that read ``Histogram.batch_amax``: their thresholds depend on how the samples were cut
into batches.  Those of all other methods are functions of the data alone."""

__all__ = [
    "CALIBRATORS",
    "PER_BATCH",
    "Calibrator",
    "Entropy",
    "MinMax",
    "MinMaxMean",
    "Mse",
    "Percentile",
]
