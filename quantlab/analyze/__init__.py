"""Diagnosis: what quantizing each part of a network costs, at the part and at the output."""

from quantlab.analyze.run import analyze
from quantlab.analyze.table import write_csv

__all__ = ["analyze", "write_csv"]
