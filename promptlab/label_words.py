"""Label word -> token ids in the context of the slot that it would fill.

The ids of a word are found by tokenising prefix + word + suffix and comparing with prefix + mask + suffix. So " great"
and "great", which are different tokens of a byte-level vocabulary, are told apart by the text around the mask.
A template of several masks has a slot for each, and a label word is then as many words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from promptlab.encoding import PLACEHOLDER, Encoder, split_parts
from promptlab.specs.verbalizer import BETWEEN_SLOTS, slot_words
from promptlab.types import Pieces, Prompt, WordTokens

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


def slot_contexts(prompt: Prompt) -> tuple[Context, ...]:
    """The context of every mask of a prompt, in order.

    A side that begins with a space is cut down to that space and a stand-in letter: what lies beyond a space does not
    change how a word is tokenised. A side that touches text keeps that text up to the next space. Other blanks count as
    text, because not every tokenizer cuts at them. In a prompt that is not tokenised whole, nothing touches a slot.
    """
    if prompt.pieces != "whole":
        return tuple(_APART[prompt.pieces] for segment in prompt.segments if segment.kind == "mask")
    contexts = []
    for part in split_parts(prompt):
        texts = [PLACEHOLDER if segment.kind == "mask" else segment.text for segment in part]
        pairs = zip(part, texts, strict=True)
        hidden = [re.sub(r"\S", "…", text) if segment.kind == "field" else text for segment, text in pairs]
        for position, segment in enumerate(part):
            if segment.kind == "mask":
                near, near_hidden = _near(texts, position), _near(hidden, position)
                contexts.append(Context(*near, _shown(*near_hidden), near == near_hidden))
    return tuple(contexts)


def find_word_ids(
    encoder: Encoder, words: Iterable[str], contexts: Sequence[Sequence[Context]]
) -> dict[str, WordTokens | str]:
    """The tokens of each word, or the sentence that says why it has none.

    Args:
        encoder: the tokenizer.
        words: label words as a reader writes them; for several slots as many words, with ` + ` between them.
        contexts: the distinct surroundings of the slots of a prompt, one context a slot; a word must have the same
            tokens in all of them.
    """
    slots = [list(dict.fromkeys(slot)) for slot in zip(*contexts, strict=True)]
    bare = [
        {context: encoder.tokens(context.left + PLACEHOLDER + context.right) for context in distinct}
        for distinct in slots
    ]
    return {word: _find(encoder, word, bare) for word in dict.fromkeys(words)}


def _find(encoder: Encoder, word: str, bare: Sequence[Mapping[Context, list[int]]]) -> WordTokens | str:
    """The tokens of a word in every slot; `bare` has the tokens around the mask of each slot."""
    parts = slot_words(word)
    if len(parts) != len(bare):
        example = f", such as 'very{BETWEEN_SLOTS}good' for two" if len(bare) > 1 else ""
        several = f"stands for {len(parts)} masks" if len(parts) > 1 else "stands for one mask"
        return f"label word '{word}' {several}, the template has {len(bare)}: write one word a mask{example}."
    found: list[tuple[int, ...]] = []
    for part, contexts in zip(parts, bare, strict=True):
        ids = _find_in_slot(encoder, part, contexts)
        if isinstance(ids, str):
            return ids
        found.append(ids)
    splits = [
        f"splits into {len(ids)} tokens ({' '.join(encoder.token_texts(ids))}) in {next(iter(contexts)).shown}"
        for ids, contexts in zip(found, bare, strict=True)
        if len(ids) > 1
    ]
    return WordTokens(tuple(found), " and ".join(splits))


def _find_in_slot(encoder: Encoder, word: str, bare: Mapping[Context, list[int]]) -> tuple[int, ...] | str:
    """The tokens of a word that are the same in every context of one slot, or why it has none."""
    found: dict[tuple[int, ...], Context] = {}
    for context, with_mask in bare.items():
        ids = _find_in(encoder, word, context, with_mask)
        if isinstance(ids, str):
            return ids
        found.setdefault(ids, context)
    if len(found) > 1:
        shown = ", ".join(f"{' '.join(encoder.token_texts(ids))!r} in {at.shown}" for ids, at in found.items())
        return f"label word '{word}' is not the same token in every row: {shown}. Put a blank around {{{{ mask }}}}."
    return next(iter(found))


def _find_in(encoder: Encoder, word: str, context: Context, with_mask: list[int]) -> tuple[int, ...] | str:
    """The ids of a word in one context, or why it has none."""
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
    unknown = [token for token in ids if token == encoder.unknown_id or token in encoder.special_ids]
    if unknown:
        return f"label word '{word}' is unknown to the tokenizer (it becomes {' '.join(encoder.token_texts(ids))})."
    return tuple(ids)


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
