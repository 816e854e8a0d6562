"""Metrics, one a file.  To add one: write the file and its line here."""

from quantlab.metrics.agreement import Agreement
from quantlab.metrics.base import Metric
from quantlab.metrics.cosine import Cosine
from quantlab.metrics.mse import Mse
from quantlab.metrics.psnr import Psnr
from quantlab.metrics.python import Python
from quantlab.metrics.spearman import Spearman
from quantlab.metrics.sqnr import Sqnr
from quantlab.metrics.top1 import Top1
from quantlab.metrics.top5 import Top5

METRICS: dict[str, type[Metric]] = {
    "top1": Top1,
    "top5": Top5,
    "cosine": Cosine,
    "sqnr": Sqnr,
    "mse": Mse,
    "agreement": Agreement,
    "spearman": Spearman,
    "psnr": Psnr,
    "python": Python,
}

__all__ = ["METRICS", "Metric"]
