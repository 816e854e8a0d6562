"""From histograms to thresholds: one calibrator, and tensors that must share a scale.

Tensors that are tied (the inputs and the output of a Concat) get the threshold of their histograms
merged, which is exact.  Tensors that merely carry another's values (behind MaxPool, Reshape ...)
follow it in a calibration cache without having been collected.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from quantlab.cache import Algorithm
from quantlab.calibrators import PER_BATCH
from quantlab.calibrators.base import Calibrator
from quantlab.histogram import Histogram, merge
from quantlab.records import TensorThreshold, Thresholds


def decide(
    histograms: Mapping[str, Histogram],
    calibrator: Calibrator,
    *,
    method: str,
    ties: Iterable[tuple[str, ...]] = (),
) -> dict[str, TensorThreshold]:
    """Return a threshold for each tensor, in the order of ``histograms``.

    Args:
        histograms: by tensor.
        calibrator: chooses the thresholds.
        method: its name, for the record.
        ties: groups of tensors that share one threshold; groups with a tensor in common (of two
            placements) are one.  Names without a histogram are ignored.

    Raises:
        CalibrationError: a tensor had no finite element, or a method of ``PER_BATCH`` lacks the
            maxima of the batches.
    """
    shared = dict(histograms)
    for group in joined(ties):
        members = [name for name in group if name in histograms]
        if members:
            together = _merged([histograms[name] for name in members])
            for name in members:
                shared[name] = replace(together, tensor=name)
    return {
        name: TensorThreshold(
            tensor=name,
            amax=histogram.amax,
            threshold=calibrator.threshold(shared[name]),
            method=method,
            minimum=min(shared[name].minimum, shared[name].maximum),
        )
        for name, histogram in histograms.items()
    }


def follow(thresholds: Thresholds, derived: Mapping[str, str]) -> dict[str, TensorThreshold]:
    """Return ``thresholds`` with the tensors that carry another's values added.

    Args:
        thresholds: by tensor.
        derived: follower to source; sources without a threshold are passed over.
    """
    found = dict(thresholds)
    for tensor, source in derived.items():
        if source in thresholds and tensor not in found:
            found[tensor] = replace(thresholds[source], tensor=tensor, method="tied")
    return found


def algorithm(method: str) -> Algorithm:
    """Return the calibrator that a cache's header names for ``method``."""
    return "MinMaxCalibration" if method in ("minmax", "minmax_mean") else "EntropyCalibration2"


def knobs(
    method: str, parameters: Mapping[str, Any], *, nonfinite: str, batch: int
) -> dict[str, Any]:
    """Return what beside the method's name moves a threshold, as the manifest records it.

    Args:
        method: name in CALIBRATORS.
        parameters: of the calibrator, those that were given.
        nonfinite: the policy for NaN and infinities.
        batch: samples a batch; recorded for the methods that depend on it.
    """
    found = {**parameters, "nonfinite": nonfinite}
    return found | {"batch": batch} if method in PER_BATCH else found


def _merged(members: Sequence[Histogram]) -> Histogram:
    """Return the members' elements together, with each batch's maximum over all of them."""
    together = merge([replace(member, tensor="") for member in members])
    maxima = [member.batch_amax for member in members if member.batch_amax is not None]
    if len(maxima) < len(members):
        return together
    return replace(together, batch_amax=np.maximum.reduce(maxima))


def joined(groups: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the groups with those that overlap put together."""
    found: list[tuple[str, ...]] = []
    for group in groups:
        apart = [other for other in found if set(other).isdisjoint(group)]
        touched = [other for other in found if other not in apart]
        found = [*apart, tuple(dict.fromkeys(name for one in (*touched, group) for name in one))]
    return found
