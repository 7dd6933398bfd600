"""The segments of a prompt -> the texts that are tokenised apart, in the manner that the head of its template names.

`whole` is one text for each side of a sentence boundary, which is what a reader writes. `lm_bff` and `pet` cut it where
those programs do, so that their published figures can be had again: princeton-nlp/LM-BFF src/dataset.py
(tokenize_multipart_input) and timoschick/pet pet/pvp.py (PVP.encode). No tokenizer is needed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptlab.types import Pieces, Segment


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that is tokenised by itself.

    `owners[i]` is the index, in the prompt, of the segment that character i belongs to. `is_looked_up` says that the
    whole text is asked of the vocabulary, instead of being cut into tokens.
    """

    text: str
    owners: Sequence[int]
    is_looked_up: bool = False

    def owner_of(self, start: int, end: int) -> int | None:
        """The one segment that the visible characters of a token lie in; None where it spans two."""
        text, owners = self.text, self.owners
        while start < end - 1 and text[start].isspace():
            start += 1
        first = owners[min(start, len(owners) - 1)]
        last = owners[max(min(end, len(owners)) - 1, 0)] if end > start else first
        return first if first == last else None


def cut_pieces(parts: Sequence[Sequence[Segment]], pieces: Pieces, *, mask: str, blank: str) -> list[list[Piece]]:
    """The texts of each side of the sentence boundary, in order; a text without characters is none.

    Args:
        parts: the segments on each side.
        pieces: how they are cut.
        mask: the text that stands for a mask.
        blank: what `pet` puts before a text, `" "` where the tokenizer tells a word with a blank from one without.
    """
    cut: list[list[Piece]] = []
    first = 0
    for part in parts:
        numbered = list(enumerate(part, start=first))
        if pieces == "lm_bff":
            cut.append(list(_as_lm_bff(numbered, mask)))
        elif pieces == "pet":
            cut.append(list(_as_pet(numbered, mask, blank)))
        else:
            cut.append([_whole(numbered, mask)])
        first += len(part) + 1
    is_alone = pieces == "pet" and len(cut) > 1 and not cut[-1]  # PET makes no pair where the second side has no text
    return cut[:-1] if is_alone else cut


def _whole(segments: Sequence[tuple[int, Segment]], mask: str) -> Piece:
    texts = [_text(segment, mask) for _, segment in segments]
    owners = [number for (number, _), text in zip(segments, texts, strict=True) for _ in text]
    return Piece("".join(texts), owners)


def _as_lm_bff(segments: Sequence[tuple[int, Segment]], mask: str) -> Iterator[Piece]:
    """Each segment apart. A blank at the end of a literal opens what follows, and is not written before a mask.

    So `*+sent_1*` is `{{ ... }}` behind a blank. A literal of one character is looked up.
    """
    blanks = ""
    for number, segment in segments:
        is_own = segment.kind in ("literal", "soft")
        text = mask if segment.kind == "mask" else blanks + _text(segment, mask)
        kept = text.rstrip(" ") if is_own else text
        blanks = text[len(kept) :]
        if kept:
            yield _piece(kept, number, is_looked_up=segment.kind == "literal" and len(kept) == 1)


def _as_pet(segments: Sequence[tuple[int, Segment]], mask: str, blank: str) -> Iterator[Piece]:
    """Each segment apart: literals without the blanks around them, all but the mask with the tokenizer's blank."""
    for number, segment in segments:
        if segment.kind == "mask" or segment.num_soft:
            yield _piece(_text(segment, mask), number)
            continue
        text = segment.text if segment.kind == "field" else segment.text.strip(" ")
        if text:
            yield _piece(text if text[0].isspace() else blank + text, number)


def _text(segment: Segment, mask: str) -> str:
    """What is tokenised: the text that stands for a mask stands for a trainable token without words too."""
    return mask if segment.kind == "mask" else segment.text or mask * segment.num_soft


def _piece(text: str, number: int, *, is_looked_up: bool = False) -> Piece:
    return Piece(text, [number] * len(text), is_looked_up)
