"""A text -> where a reader sees one character end: an accent, a skin tone or a joined emoji belongs to what it follows.

An approximation of the clusters of Unicode (UAX 29) that needs no tables: it keeps together what would be shown broken.
"""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_MARKS = ("Mn", "Me", "Mc")


def is_continued(text: str, place: int) -> bool:
    """Whether the character at a place belongs to the one before it."""
    if not 0 < place < len(text):
        return False
    character, before = text[place], text[place - 1]
    if character == _JOINER or before == _JOINER or unicodedata.category(character) in _MARKS:
        return True
    if _is_modifier(character):
        return True
    return _is_half_flag(character) and _num_half_flags(text, place) % 2 == 1


def _is_modifier(character: str) -> bool:
    """Skin tones, and the tags that spell the flag of a region."""
    return "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f"


def _is_half_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _num_half_flags(text: str, end: int) -> int:
    """How many letters of flags stand in a row before a place."""
    start = end
    while start and _is_half_flag(text[start - 1]):
        start -= 1
    return end - start
