"""Text of strangers, made safe to show: names of tensors come from models, paths from archives.

A character that is not seen could hide or reorder what stands beside it, move a terminal's cursor,
or end a comment; such characters are shown as Python's escapes.
"""

import math
import unicodedata

UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of controls, lone surrogates, line and paragraph separators."""

REORDERING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text around them."""


def visible(text: str) -> str:
    r"""Return one line of text with what is not seen as escapes.

    >>> visible("relu\n1")
    'relu\\n1'
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in UNSEEN or character in REORDERING
        else character
        for character in text
    )


def visible_lines(text: str) -> str:
    """Return text of our own lines, each ``visible``."""
    return "\n".join(map(visible, text.split("\n")))


def figure(value: float) -> str:
    """Return a number with four digits, or as many as tell it from 1.

    >>> figure(31.25678), figure(0.99971), figure(0.99999999)
    ('31.26', '0.99971', '0.99999999')
    """
    gap = abs(1 - value)
    digits = 4 if not 0 < gap < 1e-3 else 1 + math.ceil(-math.log10(gap))
    return f"{value:.{max(digits, 4)}g}"
