"""Repairs of INT8 models, one a file, in the order of their cost.

To add one: write the file and its line here.
"""

from quantlab.repair.adaround import AdaRound
from quantlab.repair.base import Repair
from quantlab.repair.bias import Bias
from quantlab.repair.center import Center
from quantlab.repair.even import Even
from quantlab.repair.refit import Refit
from quantlab.repair.rescaling import Equalize, Outliers, Smooth
from quantlab.repair.weights import Weights

RESCALING: dict[str, type[Repair]] = {
    "equalize": Equalize,
    "smooth": Smooth,
    "outliers": Outliers,
}
"""Repairs of the float model that keep what it computes."""

CORRECTING: dict[str, type[Repair]] = {
    "weights": Weights,
    "bias": Bias,
    "adaround": AdaRound,
    "even": Even,
    "refit": Refit,
}
"""Repairs of what INT8 alone stores, and what pays only together with them."""

COSTLY: dict[str, type[Repair]] = {
    "center": Center,
}
"""Repairs that cost speed."""

REPAIRS: dict[str, type[Repair]] = {**RESCALING, **CORRECTING, **COSTLY}

__all__ = ["CORRECTING", "COSTLY", "REPAIRS", "RESCALING", "Repair"]
