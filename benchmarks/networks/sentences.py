"""Made-up sentences: two of each document, for learning which belong together.

A document has three topics of 64 with unlike weights, and one of 8 styles.  A token is, with
probability 0.4, what the style makes of the token before (a permutation of the vocabulary), and
else a word of one of the topics, by rank as 1 / (rank + 1).  The topics can be seen from single
words, the style only from neighbours.

Units:  token numbers int64, 0 is padding; lengths 12 to 32, even.
Limits: a function of ``count`` and ``seed`` alone with one NumPy major version's generator.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 1024
LENGTH = 32
SHORTEST = 12
PADDING = 0

TOPICS = 64
WORDS = 48
STYLES = 8
FOLLOWS = 0.4
LANGUAGE = 20
"""Seed of the language itself: the same for every set of sentences."""

Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Language:
    words: Tokens  # (topics, words)
    styles: Tokens  # (styles, vocabulary)


def pairs(count: int, seed: int) -> Tokens:
    """Return ``count`` documents as (count, 2, LENGTH): two sentences of each."""
    rng = np.random.default_rng((LANGUAGE, seed))
    language = _language()
    topics = rng.integers(0, TOPICS, (count, 3))
    weights = np.cumsum(rng.dirichlet((1.0, 1.0, 1.0), count), axis=1)
    style = rng.integers(0, STYLES, count)
    both = [_sentences(rng, language, (topics, weights, style)) for _ in range(2)]
    return np.stack(both, axis=1)


def _language() -> _Language:
    rng = np.random.default_rng(LANGUAGE)
    real = np.arange(1, VOCABULARY)
    words = np.stack([rng.choice(real, WORDS, replace=False) for _ in range(TOPICS)])
    styles = np.zeros((STYLES, VOCABULARY), np.int64)
    for row in styles:
        row[1:] = rng.permutation(real)
    return _Language(words, styles)


def _sentences(
    rng: np.random.Generator,
    language: _Language,
    documents: tuple[Tokens, NDArray[np.float64], Tokens],
) -> Tokens:
    topics, weights, style = documents
    count = len(style)
    rows = np.arange(count)
    ranks = np.cumsum(1.0 / np.arange(1, WORDS + 1))
    tokens = np.zeros((count, LENGTH), np.int64)
    for place in range(LENGTH):
        choice = np.minimum((rng.random((count, 1)) > weights).sum(1), 2)
        rank = np.minimum(np.searchsorted(ranks, rng.random(count) * ranks[-1]), WORDS - 1)
        word = language.words[topics[rows, choice], rank]
        if place:
            follows = rng.random(count) < FOLLOWS
            word = np.where(follows, language.styles[style, tokens[:, place - 1]], word)
        tokens[:, place] = word
    lengths = rng.integers(SHORTEST, LENGTH + 1, count)
    tokens[np.arange(LENGTH) >= lengths[:, None]] = PADDING
    return tokens
