"""Naive answers to what the package computes fast: one prompt at a time, plain transformers, the whole head.

Also the shorthand in which tests write prompts, and encoders of any limit.
"""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from promptlab.encoding import Encoder
from promptlab.types import EncodedPrompt, Fill, FilledPrompt, Keep, Prompt, Segment, WordTokens

MASK = Segment("mask")
SEP = Segment("sep")


def field(text: str, *, keep: Keep = "head", order: int = 0, fixed: bool = False) -> Segment:
    """Text of a row."""
    return Segment("field", text, is_shortenable=not fixed, keep=keep, order=order)


def prompt(*pieces: str | Segment) -> Prompt:
    """A prompt from literals (texts) and segments."""
    return Prompt(tuple(Segment("literal", piece) if isinstance(piece, str) else piece for piece in pieces))


def encoder_of(tokenizer: Any, max_length: int = 512, *, uses_segment_ids: bool | None = None) -> Encoder:
    """An encoder; by default it tells the parts of a pair apart where the tokenizer is of BERT's kind.

    Its engine is that of every other limit: to copy it anew would take most of the time of many a test.
    """
    is_bert = tokenizer.cls_token == "[CLS]"
    encoder = copy.copy(_encoder(tokenizer, is_bert if uses_segment_ids is None else uses_segment_ids))
    encoder.max_length = max_length
    return encoder


@functools.lru_cache(maxsize=64)
def _encoder(tokenizer: Any, uses_segment_ids: bool) -> Encoder:
    return Encoder(tokenizer, max_length=512, uses_segment_ids=uses_segment_ids)


def written(asked: Prompt, mask_token: str) -> list[str]:
    """The text on each side of the sentence boundary, with the tokenizer's real mask token in the slots."""
    parts = [""]
    for segment in asked.segments:
        if segment.kind == "sep":
            parts.append("")
        else:
            parts[-1] += mask_token if segment.kind == "mask" else segment.text
    return parts


def tokenized(tokenizer: Any, asked: Prompt) -> tuple[list[int], list[int]]:
    """Ids and segment ids that the tokenizer itself gives for the written prompt."""
    # Batches of one: transformers takes a bare "" as the second text for none.
    batches = [[text] for text in written(asked, tokenizer.mask_token)]
    found = tokenizer(*batches, return_token_type_ids=True)
    return list(found["input_ids"][0]), list(found["token_type_ids"][0])


# What each tokenizer puts before a text, between two and behind, written down by kind.
_BERT, _ROBERTA = (("[CLS]",), ("[SEP]",), ("[SEP]",)), (("<s>",), ("</s>", "</s>"), ("</s>",))
FRAMES: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    **dict.fromkeys(("bert", "bert_cased", "bert_chinese", "albert", "deberta_v2", "mini"), _BERT),
    **dict.fromkeys(("roberta", "roberta_trimmed", "xlm_roberta", "unigram"), _ROBERTA),
    "modernbert": (("<s>",), ("</s>",), ("</s>",)),
}


def in_pieces(
    tokenizer: Any, asked: Prompt, frame: Sequence[Sequence[str]], *, has_blank: bool
) -> tuple[list[int], list[int]]:
    """Ids and segment ids by the rules of LM-BFF or PET, one text at a time, with the tokenizer that both of them call.

    Args:
        tokenizer: of transformers.
        asked: a prompt whose `pieces` names the program.
        frame: what stands before, between and behind two texts.
        has_blank: whether PET asks the tokenizer for a blank before each text (`add_prefix_space`).
    """
    before, between, behind = (tokenizer.convert_tokens_to_ids(list(tokens)) for tokens in frame)
    if asked.pieces == "lm_bff":
        # A mark before each segment; blanks at the end of a literal go behind the mark, and not before a mask.
        text = "".join(f"\0{segment.kind[0]}{segment.text}" for segment in asked.segments) + "\0."
        while text != (text := re.sub(r"(\0l[^\0]*?)( +)(\0[lf])", r"\1\3\2", text, count=1)):
            pass
        text = re.sub(r"(\0l[^\0]*?) +(?=\0[ms.])", r"\1", text)
        parts = [_lm_bff_ids(tokenizer, part[0], part[1:]) for part in text.split("\0")[1:]]
        ids = [*before, *itertools.chain(*parts)]
        return ids, [0] * len(ids)
    sides: list[list[str | None]] = [[]]
    for segment in asked.segments:
        text = segment.text.strip(" ") if segment.kind == "literal" else segment.text
        if segment.kind == "sep":
            sides.append([])
        elif segment.kind == "mask" or text:
            sides[-1].append(None if segment.kind == "mask" else text)
    blank = " " if has_blank else ""
    found = [[token for text in side for token in _pet_ids(tokenizer, text, blank)] for side in sides]
    if len(sides) == 1 or not sides[1]:
        ids = [*before, *found[0], *behind]
        return ids, [0] * len(ids)
    first, second = [*before, *found[0], *between], [*found[1], *behind]
    return first + second, [0] * len(first) + [1] * len(second)


def _lm_bff_ids(tokenizer: Any, kind: str, text: str) -> list[int]:
    if kind in "m":
        return [tokenizer.mask_token_id]
    if kind in "s.":
        return [tokenizer.sep_token_id]
    if kind == "l" and len(text) == 1:
        return [tokenizer.convert_tokens_to_ids(text)]
    return list(tokenizer.encode(text, add_special_tokens=False))


def _pet_ids(tokenizer: Any, text: str | None, blank: str) -> list[int]:
    if text is None:
        return [tokenizer.mask_token_id]
    return list(tokenizer.encode(text if text[0].isspace() else blank + text, add_special_tokens=False))


def word_id(tokenizer: Any, asked: Prompt, word: str, *, slot: int = 0) -> int | None:
    """The token that takes the place of a mask when the word is written there; None where more than it changes."""
    with_mask = tokenized(tokenizer, asked)[0]
    masks = [number for number, segment in enumerate(asked.segments) if segment.kind == "mask"]
    filled = [Segment("literal", word) if number == masks[slot] else s for number, s in enumerate(asked.segments)]
    with_word = tokenized(tokenizer, Prompt(tuple(filled)))[0]
    mask_id = tokenizer.mask_token_id
    place = [position for position, token in enumerate(with_mask) if token == mask_id][slot]
    is_left_kept = with_word[:place] == with_mask[:place]
    texts, masked = (tokenizer.convert_ids_to_tokens(ids[place + 1 :]) for ids in (with_word, with_mask))
    # Metaspace puts a blank behind a mask where there is none. An unknown word and what follows it are one token.
    found = tokenizer.convert_ids_to_tokens(with_word)[place : place + 1]
    are_apart = [tokenizer.unk_token] != texts[:1] and found != ["\u2581"]
    if texts != masked and masked[0].startswith("\u2581") and are_apart:
        texts, masked = ["".join(texts)], ["".join(masked).removeprefix("\u2581")]
    if not is_left_kept or texts != masked or with_word[place] in tokenizer.all_special_ids:
        return None
    return with_word[place]


def mask_log_probs(model: Any, tokenizer: Any, asked: Prompt) -> np.ndarray[Any, Any]:
    """Log-probabilities of the whole vocabulary at every mask, from the plain forward of one prompt alone."""
    import torch

    ids, segment_ids = (torch.tensor([values]) for values in tokenized(tokenizer, asked))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": segment_ids}
    if int(getattr(model.config, "type_vocab_size", 0) or 0) < 2:
        del inputs["token_type_ids"]
    with torch.inference_mode():
        logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits[0].float()
    at_masks = logits[(ids[0] == tokenizer.mask_token_id).to(model.device)]
    found: np.ndarray[Any, Any] = torch.log_softmax(at_masks, dim=-1).cpu().numpy()
    return found


def filled(one: EncodedPrompt, fill: Fill, mask_id: int, asked: Sequence[tuple[int, int]]) -> FilledPrompt:
    """A prompt with the pieces in its slots; `asked` has pairs of a piece's number and the token wanted there."""
    slots, starts = dict(zip(one.mask_positions, fill.slots, strict=True)), list[int]()
    ids, segment_ids = list[int](), list[int]()
    for position, (token, segment_id) in enumerate(zip(one.input_ids, one.segment_ids, strict=True)):
        pieces = [mask_id if piece is None else piece for piece in slots.get(position, ())] or [int(token)]
        starts += range(len(ids), len(ids) + len(pieces)) if position in slots else ()
        ids += pieces
        segment_ids += [int(segment_id)] * len(pieces)
    return FilledPrompt(
        key=one.key,
        fill=fill,
        input_ids=np.array(ids, dtype=np.int32),
        segment_ids=np.array(segment_ids, dtype=np.int32),
        positions=tuple(piece for piece, _ in asked),
        asked=tuple(starts[piece] for piece, _ in asked),
        token_ids=tuple(token for _, token in asked),
    )


def plain_logits(model: Any, one: FilledPrompt) -> np.ndarray[Any, Any]:
    """What a model of transformers gives at every token of one filled prompt alone, in float64."""
    import torch

    inputs = {"input_ids": torch.tensor(one.input_ids[None].tolist())}
    if int(getattr(model.config, "type_vocab_size", 0) or 0) >= 2:
        inputs["token_type_ids"] = torch.tensor(one.segment_ids[None].tolist())
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model(**inputs)[0][0].double().numpy()
    return found


def truncated(lengths: Sequence[int], excess: int, keep: Sequence[Keep], order: Sequence[int]) -> list[list[int]]:
    """Which tokens of each field stay: cut one at a time from the longest field of the lowest order that has any."""
    kept = [list(range(length)) for length in lengths]
    for _ in range(excess):
        lowest = min(order[number] for number, tokens in enumerate(kept) if tokens)
        longest = max(len(tokens) for number, tokens in enumerate(kept) if order[number] == lowest)
        number = next(n for n, tokens in enumerate(kept) if order[n] == lowest and len(tokens) == longest)
        if keep[number] == "tail" or (keep[number] == "middle" and longest % 2 == 0):
            kept[number] = kept[number][1:]
        else:
            kept[number] = kept[number][:-1]
    return kept


def single_id(found: WordTokens | str) -> int | None:
    """The token of a word that is one token in one slot; None where it has none or several."""
    return found.pieces[0] if isinstance(found, WordTokens) and len(found.pieces) == 1 else None


class SlotOracle:
    """A plain model of transformers and one written-out prompt; nothing is batched, cached or shared."""

    def __init__(self, model: Any, encoded: EncodedPrompt, mask_id: int) -> None:
        self.model, self.encoded, self.mask_id = model, encoded, mask_id

    def log_probs(self, slots: Sequence[Sequence[int | None]]) -> list[np.ndarray[Any, Any]]:
        """The log-softmax over the vocabulary at each position of the slots, a mask where there is None."""
        import torch

        ids, types, places = list[int](), list[int](), list[int]()
        waiting = iter(slots)
        for number, (token, kind) in enumerate(zip(self.encoded.input_ids, self.encoded.segment_ids, strict=True)):
            pieces = next(waiting) if number in self.encoded.mask_positions else [int(token)]
            places += range(len(ids), len(ids) + len(pieces)) if number in self.encoded.mask_positions else []
            ids += [self.mask_id if piece is None else piece for piece in pieces]
            types += [int(kind)] * len(pieces)
        inputs = {"input_ids": torch.tensor([ids])}
        if int(getattr(self.model.config, "type_vocab_size", 0) or 0) >= 2:
            inputs["token_type_ids"] = torch.tensor([types])
        with torch.inference_mode():
            logits = self.model(**inputs).logits[0]
        return [torch.log_softmax(logits[place].double(), dim=-1).numpy() for place in places]

    def word(self, slots: Sequence[Sequence[int]], rule: str) -> float:
        """The sum of log-probabilities of a word by a rule."""
        if rule == "first_token":
            found = self.log_probs([[None] for _ in slots])
            return float(sum(one[slot[0]] for one, slot in zip(found, slots, strict=True)))
        tokens = [token for slot in slots for token in slot]
        shown: list[int | None] = [None] * len(tokens)
        total, left = 0.0, list(range(len(tokens)))
        while left:
            pieces = iter(shown)
            found = self.log_probs([[next(pieces) for _ in slot] for slot in slots])
            if rule == "independent":
                return float(sum(found[place][token] for place, token in enumerate(tokens)))
            place = left[0] if rule == "left_to_right" else max(left, key=lambda at: found[at][tokens[at]])
            total += float(found[place][tokens[place]])
            shown[place] = tokens[place]
            left.remove(place)
        return total
