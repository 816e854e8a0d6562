"""The tables of everything that a config chooses by name."""

from quantlab.calibrators import CALIBRATORS
from quantlab.collect.executors import EXECUTORS
from quantlab.config import Plugs
from quantlab.datasets import DATASETS
from quantlab.engines import ENGINES
from quantlab.metrics import METRICS
from quantlab.repair import REPAIRS

PLUGS = Plugs(
    calibrators=CALIBRATORS,
    datasets=DATASETS,
    engines=ENGINES,
    executors=EXECUTORS,
    metrics=METRICS,
    repairs=REPAIRS,
)
