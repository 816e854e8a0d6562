"""Where Q/DQ go, for the calibration cache and for the engine."""

from collections.abc import Mapping

import onnx_ir as ir

from quantlab.graph.placement import Placement, place
from quantlab.steps.job import Job

CACHE_POLICY = "tensorrt"
"""The placement whose tensors a calibration cache holds, whatever engine is built."""


def placements(job: Job, model: ir.Model) -> dict[str, Placement]:
    """Return, by policy, where Q/DQ go for the cache and for the engine."""
    policies = dict.fromkeys((CACHE_POLICY, job.policy))
    return {policy: place(model, policy) for policy in policies}


def ties(placed: Mapping[str, Placement]) -> list[tuple[str, ...]]:
    """Return the groups of tensors that share a threshold."""
    return [group for placement in placed.values() for group in placement.ties]


def wanted(job: Job, placed: Mapping[str, Placement]) -> tuple[str, ...]:
    """Return the tensors to collect."""
    names = [tensor for placement in placed.values() for tensor in placement.tensors]
    if job.config.calibration.tensors == "all":
        names += placed[CACHE_POLICY].implicit
    return tuple(dict.fromkeys(names))
