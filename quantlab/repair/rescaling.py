"""Repairs that scale channels: the float model computes the same and fits its grids better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from quantlab.graph.equalize import equalize
from quantlab.graph.outliers import outliers
from quantlab.graph.rescale import Change, Rescaled
from quantlab.graph.smooth import smooth
from quantlab.repair.base import Bench, Proposal
from quantlab.simulate import Draft

TOLD = 3
"""Changes that a note names; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Equalize:
    """Cross-layer equalization, ``graph/equalize.py``."""

    name: ClassVar[str] = "equalize"
    about: ClassVar[str] = "even out the channels between layers"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """See ``Repair.propose``."""
        return rescaled(draft, bench, equalize)


@dataclass(frozen=True, slots=True)
class Smooth:
    """SmoothQuant, ``graph/smooth.py``."""

    name: ClassVar[str] = "smooth"
    about: ClassVar[str] = "share outlying channels behind LayerNorm, GELU or SiLU with the weights"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """See ``Repair.propose``."""
        return rescaled(draft, bench, smooth)


@dataclass(frozen=True, slots=True)
class Outliers:
    """Single outlying channels, ``graph/outliers.py``."""

    name: ClassVar[str] = "outliers"
    about: ClassVar[str] = "scale single outlying channels down in front of layers"

    def propose(self, draft: Draft, bench: Bench) -> Proposal:
        """See ``Repair.propose``."""
        return rescaled(draft, bench, outliers)


def rescaled(draft: Draft, bench: Bench, change: Callable[..., Rescaled]) -> Proposal:
    """Return the draft with its channels scaled, collected anew."""
    amax = bench.channels(draft.model)
    if not amax:
        return Proposal(None, "no channels can be scaled without changing the function")
    made = change(draft.model, amax, quantized=frozenset(draft.placement.tensors))
    if not made.changes:
        return Proposal(None, "no channels that are unequal enough")
    return Proposal(bench.redraft(draft, made.model), _told(made.changes))


def _told(changes: tuple[Change, ...]) -> str:
    parts = [
        f"{', '.join(change.tensors)} by {change.factors_low:.3g} to {change.factors_high:.3g}"
        + (f" ({change.note})" if change.note else "")
        for change in changes[:TOLD]
    ]
    more = f" and {len(changes) - TOLD} more" if len(changes) > TOLD else ""
    clips = [name for change in changes for name in change.clips]
    bound = (
        f"; the upper bound of {', '.join(clips)} was never reached on the calibration samples and "
        "is gone: the FP32 function is equal on what was seen"
    )
    return f"scaled {'; '.join(parts)}{more}{bound if clips else ''}"
