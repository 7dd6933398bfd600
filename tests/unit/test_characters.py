"""Characters as a reader sees them, which may be several code points."""

from __future__ import annotations

import unicodedata

import pytest

from promptlab.characters import is_continued

SEVERAL = {
    "an accent": "e\u0301",
    "a skin tone": "\U0001f44d\U0001f3fd",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a heart in colour": "\u2764\ufe0f",
    "a flag": "\U0001f1e9\U0001f1ea",
    "the flag of a region": "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "a vowel sign": "\u0915\u093f",
    "a syllable of letters": "\u1112\u1161\u11ab",
    "two leading letters": "\u1107\u1107\u1161",
    "a syllable and a letter": "\uac00\u11a8",
    "a closed syllable and a letter": "\uac01\u11c2",
    "a letter and a syllable": "\u1100\uac01",
}


@pytest.mark.parametrize("character", SEVERAL.values(), ids=SEVERAL)
def test_a_character_of_several_code_points_is_one(character: str) -> None:
    """What belongs to a character goes on, and what follows it starts anew."""
    text = f"x{character}{character}x"
    starts = [place for place in range(1, len(text)) if not is_continued(text, place)]
    assert [1, 1 + len(character), 1 + 2 * len(character)] == starts


@pytest.mark.parametrize(
    "text", ["great", "\u5f88\u597d", "a b", "\U0001f600\U0001f600", "\ud55c\uad6d\uc5b4", "\u3131\u314f"]
)
def test_plain_characters_stand_alone(text: str) -> None:
    """Letters, blanks and emoji of one code point are characters of their own, and so are both ends of a text."""
    assert not any(is_continued(text, place) for place in range(len(text) + 1))


def test_letters_of_hangul_join_as_unicode_composes_them() -> None:
    """Letters that Unicode composes into one syllable are one character, and two syllables never are."""
    syllables = [chr(0xAC00 + 28 * 21 * lead + 28 * vowel + trail)
                 for lead in (0, 9, 18) for vowel in (0, 12, 20) for trail in (0, 1, 27)]  # fmt: skip
    for syllable in syllables:
        letters = unicodedata.normalize("NFD", syllable)
        assert len(letters) > 1
        assert all(is_continued(letters, place) for place in range(1, len(letters)))
        assert not is_continued(letters * 2, len(letters))
        assert not is_continued(syllable * 2, 1)
