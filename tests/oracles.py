"""Naive answers to what the package computes fast: one prompt at a time, plain transformers, the whole head.

Also the shorthand in which tests write prompts, and encoders of any limit.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from promptlab.encoding import Encoder
from promptlab.types import Keep, Prompt, Segment

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
