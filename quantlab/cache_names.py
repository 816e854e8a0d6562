"""Whose scale a line of an old calibration cache is: matching its names to a model's tensors.

A cache names tensors as TensorRT's parser did: by their ONNX names, by these with a suffix (``:0``
from TensorFlow, ``_0`` where the parser made a name unique), or, where the parser made a tensor of
its own, ``(Unnamed Layer* 7) [Constant]_output`` and ``ONNXTRT_...``, whose numbers depend on the
parser's version.  In order:

1. exact: the name is the tensor's;
2. suffix: it is, apart from such a suffix, or from characters other than letters and digits; the
   match must be the only one, for the name and for the tensor;
3. same values: another name of the same values has a scale (an Identity or Dropout that preparing
   the model removed);
4. tied: a tensor that TensorRT gives the same scale has one (behind ReLU, pooling, Reshape); of
   several the largest, so that none of them is cut;
5. shared: tensors on one grid (the inputs and the output of a Concat) all get the largest scale of
   theirs, whatever the cache has.

A scale of 0, which TensorRT wrote for a tensor that was always zero and took for no scale at all,
counts as none.

Source: facts of the format as in ``cache``; onnx-tensorrt ImporterContext.cpp, generateUniqueName.
Limits: names alone decide.  A suffix match is a guess, which is why it is told.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

How = Literal["exact", "suffix", "same values", "tied", "shared"]

PARSERS_OWN = re.compile(r"\(Unnamed Layer\* \d+\) \[.*\]_output|ONNXTRT_\w+")
_SUFFIX = re.compile(r"(:\d+|_\d+)$")
_OTHER = re.compile(r"[^0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Match:
    """A tensor's scale.

    Attributes:
        tensor: the model's name of it.
        scale: amax / 127, greater than 0.
        how: by which rule.
        entry: the cache's name that the scale is from.
    """

    tensor: str
    scale: float
    how: How
    entry: str

    def __str__(self) -> str:
        """Return the source in words, e.g. ``suffix of 'conv1:0'``."""
        return {
            "exact": "the cache's own",
            "suffix": f"suffix: {self.entry!r}",
            "same values": f"same values as {self.entry!r}",
            "tied": f"tied to {self.entry!r}",
            "shared": f"shared with {self.entry!r}",
        }[self.how]


@dataclass(frozen=True, slots=True)
class Matching:
    """What a cache says of a model.

    Attributes:
        matches: by tensor.
        zero: tensors whose own scale is 0 and that got none from elsewhere.
        parsers_own: entries of tensors that TensorRT's parser made; nothing in the model has them.
        ambiguous: entries that several tensors could mean, or that share one; not used.
        unused: other entries that no tensor of the model has: of another model or export.
    """

    matches: Mapping[str, Match]
    zero: tuple[str, ...]
    parsers_own: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unused: tuple[str, ...]


def match(
    scales: Mapping[str, float],
    tensors: Sequence[str],
    *,
    same: Iterable[Collection[str]] = (),
    tied: Iterable[Collection[str]] = (),
    shared: Iterable[Collection[str]] = (),
) -> Matching:
    """Find each tensor's scale in a cache.

    Args:
        scales: of the cache, by its names.
        tensors: every name of the model, of before and after it was prepared.
        same: groups of names of the same values.
        tied: groups of tensors of which one has the others' scale.
        shared: groups of tensors that must have the same scale.
    """
    exact = {name: name for name in tensors if name in scales}
    own = tuple(entry for entry in scales if PARSERS_OWN.fullmatch(entry) and entry not in exact)
    left = [entry for entry in scales if entry not in exact and entry not in own]
    pairs = _pairs(left, [name for name in tensors if name not in exact])
    once = _only(pairs)
    found = {name: Match(name, scales[name], "exact", name) for name in exact}
    found |= {name: Match(name, scales[entry], "suffix", entry) for entry, name in once}
    zero = [name for name, match in found.items() if match.scale == 0]
    for name in zero:
        del found[name]
    for group in same:
        _spread(found, group, "same values")
    for group in tied:
        _spread(found, group, "tied")
    for group in shared:
        _spread(found, group, "shared", every=True)
    taken = {entry for entry, _ in once}
    doubtful = tuple(dict.fromkeys(entry for entry, _ in pairs if entry not in taken))
    return Matching(
        matches={name: found[name] for name in tensors if name in found},
        zero=tuple(name for name in zero if name not in found),
        parsers_own=own,
        ambiguous=doubtful,
        unused=tuple(e for e in left if e not in taken and e not in doubtful),
    )


def _pairs(entries: Sequence[str], tensors: Sequence[str]) -> list[tuple[str, str]]:
    """Return every entry and tensor that differ in a suffix or in punctuation only."""
    whole: dict[str, list[str]] = defaultdict(list)
    shortened: dict[str, list[str]] = defaultdict(list)
    for name in tensors:
        whole[_cleaned(name)].append(name)
        if _SUFFIX.search(name):
            shortened[_cleaned(_SUFFIX.sub("", name))].append(name)
    pairs = []
    for entry in entries:
        meant = [*whole[_cleaned(entry)], *shortened[_cleaned(entry)]]
        if _SUFFIX.search(entry):
            meant += whole[_cleaned(_SUFFIX.sub("", entry))]
        pairs += [(entry, name) for name in dict.fromkeys(meant)]
    return pairs


def _only(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of which both sides are in one pair only."""
    entries, names = Counter(e for e, _ in pairs), Counter(n for _, n in pairs)
    return [(e, n) for e, n in pairs if entries[e] == 1 and names[n] == 1]


def _cleaned(name: str) -> str:
    return _OTHER.sub("_", name).strip("_")


def _spread(
    found: dict[str, Match], group: Collection[str], how: How, *, every: bool = False
) -> None:
    """Give the largest scale of a group to those that have none, or to ``every`` smaller one."""
    given = [found[name] for name in group if name in found]
    if not given:
        return
    widest = max(given, key=lambda match: match.scale)
    for name in group:
        if name not in found or (every and found[name].scale < widest.scale):
            found[name] = Match(name, widest.scale, how, widest.entry)
