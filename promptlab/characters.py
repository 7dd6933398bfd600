"""A text -> where a reader sees one character end: an accent, a skin tone or a joined emoji belongs to what it follows.

An approximation of the clusters of Unicode (UAX 29) that needs no tables: it keeps together what would be shown broken,
syllables of Hangul that are written in single letters among them.
"""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_MARKS = ("Mn", "Me", "Mc")
_FOLLOWED_BY = {  # letters of Hangul: leading, vowel, trailing, and syllables without and with a trailing one
    "L": ("L", "V", "LV", "LVT"),
    "V": ("V", "T"),
    "LV": ("V", "T"),
    "T": ("T",),
    "LVT": ("T",),
}


def is_continued(text: str, place: int) -> bool:
    """Whether the character at a place belongs to the one before it."""
    if not 0 < place < len(text):
        return False
    character, before = text[place], text[place - 1]
    if character == _JOINER or before == _JOINER or unicodedata.category(character) in _MARKS:
        return True
    if _is_modifier(character) or _hangul(character) in _FOLLOWED_BY.get(_hangul(before), ()):
        return True
    return _is_half_flag(character) and _num_half_flags(text, place) % 2 == 1


def _is_modifier(character: str) -> bool:
    """Skin tones, and the tags that spell the flag of a region."""
    return "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f"


def _hangul(character: str) -> str:
    """What part of a syllable of Hangul a character is (UAX 29, GB6 to GB8); empty for any other character."""
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb":
        return "T"
    if "\uac00" <= character <= "\ud7a3":
        return "LVT" if (ord(character) - 0xAC00) % 28 else "LV"
    return ""


def _is_half_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _num_half_flags(text: str, end: int) -> int:
    """How many letters of flags stand in a row before a place."""
    start = end
    while start and _is_half_flag(text[start - 1]):
        start -= 1
    return end - start
