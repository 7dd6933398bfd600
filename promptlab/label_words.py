"""Label word -> token id in the context of the slot that it would fill.

The ids of a word are found by tokenising prefix + word + suffix and comparing with prefix + mask + suffix. So " great"
and "great", which are different tokens of a byte-level vocabulary, are told apart by the text around the mask.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from promptlab.encoding import PLACEHOLDER, Encoder, split_parts
from promptlab.types import Pieces, Prompt

_STAND_IN = "x"
_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a blank


@dataclass(frozen=True, slots=True, order=True)
class Context:
    """The text that touches a slot on its left and on its right.

    `shown` is how messages print it: text of a row becomes an ellipsis there, because messages are stored. `is_literal`
    says that no text of a row stands in it, so that it may be stored itself. `pieces` says how the prompt is cut before
    it is tokenised: where it is not `whole`, a word is looked up by itself.
    """

    left: str
    right: str
    shown: str = field(default="", compare=False)
    is_literal: bool = field(default=True, compare=False)
    pieces: Pieces = "whole"

    def stored(self) -> list[str | bool]:
        """What `Context(*stored)` is made of again; what is plain is left out."""
        apart = [self.is_literal, self.pieces] if self.pieces != "whole" else []
        return [self.left, self.right, self.shown, *apart]


_APART = {
    "lm_bff": Context(" ", "", "' ___' (pieces: lm_bff)", pieces="lm_bff"),
    "pet": Context("", "", "'___' (pieces: pet)", pieces="pet"),
}


def slot_contexts(prompt: Prompt) -> list[Context]:
    """The context of every mask of a prompt, in order.

    A side that begins with a space is cut down to that space and a stand-in letter: what lies beyond a space does not
    change how a word is tokenised. A side that touches text keeps that text up to the next space. Other blanks count as
    text, because not every tokenizer cuts at them. In a prompt that is not tokenised whole, nothing touches a slot.
    """
    if prompt.pieces != "whole":
        return [_APART[prompt.pieces] for segment in prompt.segments if segment.kind == "mask"]
    contexts = []
    for part in split_parts(prompt):
        texts = [PLACEHOLDER if segment.kind == "mask" else segment.text for segment in part]
        pairs = zip(part, texts, strict=True)
        hidden = [re.sub(r"\S", "…", text) if segment.kind == "field" else text for segment, text in pairs]
        for position, segment in enumerate(part):
            if segment.kind == "mask":
                near, near_hidden = _near(texts, position), _near(hidden, position)
                contexts.append(Context(*near, _shown(*near_hidden), near == near_hidden))
    return contexts


def find_word_ids(encoder: Encoder, words: Iterable[str], contexts: Sequence[Context]) -> dict[str, int | str]:
    """The token id of each word, or the sentence that says why it has none.

    Args:
        encoder: the tokenizer.
        words: label words as a reader writes them.
        contexts: every distinct context of the slot; a word must be the same token in all of them.
    """
    bare = {context: encoder.tokens(context.left + PLACEHOLDER + context.right) for context in contexts}
    return {word: _find(encoder, word, bare) for word in dict.fromkeys(words)}


def _find(encoder: Encoder, word: str, bare: Mapping[Context, list[int]]) -> int | str:
    found: dict[int, Context] = {}
    for context, with_mask in bare.items():
        token = _find_in(encoder, word, context, with_mask)
        if isinstance(token, str):
            return token
        found.setdefault(token, context)
    if len(found) > 1:
        shown = ", ".join(f"{encoder.token_texts([token])[0]!r} in {at.shown}" for token, at in found.items())
        return f"label word '{word}' is not the same token in every row: {shown}. Put a blank around {{{{ mask }}}}."
    return next(iter(found))


def _find_in(encoder: Encoder, word: str, context: Context, with_mask: list[int]) -> int | str:
    """The id of a word in one context, or why it has none."""
    with_word = encoder.tokens(context.left + word + context.right)
    num_left = len(encoder.tokens(context.left + PLACEHOLDER)) - 1
    is_left_kept = with_word[:num_left] == with_mask[:num_left]
    num_pieces = _num_pieces(encoder, with_word[num_left:], with_mask[num_left + 1 :]) if is_left_kept else 0
    ids = with_word[num_left : num_left + num_pieces]
    if context.pieces != "whole":
        ids = encoder.word_tokens(word, context.pieces)
    if not ids:
        side = "behind" if is_left_kept else "before"
        changes = f"label word '{word}' changes its neighbours in {context.shown}: the text {side} it is cut otherwise"
        if not context.is_literal:
            return f"{changes}. Put a blank around {{{{ mask }}}}."
        split, mask_split = (_split(encoder, tokens, context) for tokens in (with_word, with_mask))
        return f"{changes}, {split} against {mask_split}."
    if len(ids) > 1:
        pieces = " ".join(encoder.token_texts(ids))
        split = f"splits into {len(ids)} tokens ({pieces}) in {context.shown}"
        return f"label word '{word}' {split}: use a word that is one token."
    if ids[0] == encoder.unknown_id or ids[0] in encoder.special_ids:
        return f"label word '{word}' is unknown to the tokenizer (it becomes {encoder.token_texts(ids)[0]})."
    return ids[0]


def _split(encoder: Encoder, ids: list[int], context: Context) -> str:
    """Tokens as a message prints them, with an ellipsis for the letters that stand in for what is left out."""
    texts = encoder.token_texts(ids)
    if context.left.startswith(f"{_STAND_IN} "):
        texts[0] = "…"
    if context.right.endswith(f" {_STAND_IN}"):
        texts[-1] = "…"
    return " ".join(texts)


def _num_pieces(encoder: Encoder, pieces: list[int], following: list[int]) -> int:
    """How many of the pieces make the word, where the rest is what follows the mask; 0 where it is not."""
    for number in range(1, len(pieces) + 1):
        if _is_same_text(encoder, pieces[number:], following):
            return number
    return 0


def _is_same_text(encoder: Encoder, rest: list[int], following: list[int]) -> bool:
    """Whether the text behind a word is cut as behind the mask, but for the blank that Metaspace puts behind a mask.

    SentencePiece vocabularies (ALBERT, XLM-R, DeBERTa) read "great." as "▁great ." and "[MASK]." as "[MASK] ▁ .".
    """
    if rest == following or not rest or not following or rest[0] == encoder.unknown_id:
        return rest == following
    texts, masked = encoder.token_texts(rest), encoder.token_texts(following)
    return masked[0].startswith(_BLANK) and "".join(texts) == "".join(masked).removeprefix(_BLANK)


def _near_end(text: str) -> str:
    """The end of a text that can matter for what follows it."""
    stripped = text.rstrip()
    blanks = text[len(stripped) :]
    if blanks and not blanks.strip(" "):
        return (_STAND_IN if stripped else "") + blanks
    before, space, touching = stripped.rpartition(" ")
    return before[len(before.rstrip(" ")) :] + space + touching + blanks


def _near_start(text: str) -> str:
    """The start of a text that can matter for what precedes it."""
    stripped = text.lstrip()
    blanks = text[: len(text) - len(stripped)]
    if blanks and not blanks.strip(" "):
        return blanks + (_STAND_IN if stripped else "")
    return blanks + stripped.partition(" ")[0]


def _near(texts: Sequence[str], position: int) -> tuple[str, str]:
    """What touches the text at a position on its left and on its right."""
    return _near_end("".join(texts[:position])), _near_start("".join(texts[position + 1 :]))


def _shown(left: str, right: str) -> str:
    """A context as messages print it: `… ___ .`, where the dots stand for what is left out."""
    left = re.sub(f"^{_STAND_IN}(?= +$)", "…", left)
    right = re.sub(f"(?<=^ ){_STAND_IN}$", "…", right)
    shown = re.sub("…+", "…", f"{left}___{right}")
    return repr(shown.replace(PLACEHOLDER, "[MASK]"))
