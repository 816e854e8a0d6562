"""Text of strangers, made safe to show: names of tensors come from models, paths from archives.

A character that is not seen could hide or reorder what stands beside it, move a terminal's cursor,
or end a comment; such characters are shown as Python's escapes.
"""

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
