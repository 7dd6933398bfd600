"""Rendered prompts + verbalizers -> the scores of label words, in memory: what nothing stores asks this way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.backends.base import Backend
from promptlab.batching import BatchSize
from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.encoding import Encoder
from promptlab.filling import Rule, is_simple, normalized, plain_tokens, reserve_of, rule_of, word_sums
from promptlab.scoring import score_fills, score_prompts
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, MaskScores, Prompt, Unscorable, WordTokens
from promptlab.verbalizing import log_mass

if TYPE_CHECKING:
    from jaxtyping import Float64

    from promptlab.block_scores import Keys


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the words of one verbalizer come to in some prompts; natural logarithms, NaN where `reasons` says why.

    `sums` are log-probabilities summed over the tokens of a word, `scores` what the verbalizer makes of them, one
    column a word; `log_mass` is the log-probability of all words together, NaN also where they have none.
    """

    sums: Float64[np.ndarray, "prompt word"]
    scores: Float64[np.ndarray, "prompt word"]
    log_mass: Float64[np.ndarray, " prompt"]
    reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The answers of each verbalizer; where masks were looked at too, the prompts with no room for longer words."""

    answers: tuple[Answers, ...]
    encoded: tuple[EncodedPrompt | Unscorable, ...] = ()
    masks: tuple[MaskScores, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Words of a verbalizer as a template has them: all that can be scored."""

    verbalizer: Verbalizer
    tokens: Mapping[str, WordTokens]


def answer(
    backend: Backend,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    asked: Sequence[Words],
    *,
    batch_size: BatchSize,
    shows_masks: bool = False,
) -> Answered:
    """Score every word of some verbalizers in some prompts.

    Args:
        backend: runs the model, and says by `scorer.scoring` how words are scored.
        encoder: its tokenizer.
        prompts: all with as many masks as the words have slots.
        asked: what is scored.
        batch_size: how large a batch may be.
        shows_masks: whether plain masks are scored where no word asks about them, and handed back.

    Raises:
        DataError: a prompt that cannot be encoded.
        ModelError: a prompt does not fit into memory, or the model gives NaN.
    """
    rules = [rule_of(one.verbalizer, backend.scorer.scoring) for one in asked]
    reserves = [reserve_of(one.tokens.values(), rule) for one, rule in zip(asked, rules, strict=True)]
    needed = {*reserves, 0} if shows_masks else set(reserves)
    encoded = {reserve: encoder.encode(prompts, reserve=reserve) for reserve in sorted(needed)}
    tokens = {
        token for one, rule in zip(asked, rules, strict=True) for token in plain_tokens(one.tokens.values(), rule)
    }
    masks: list[MaskScores] = []
    if backend.scorer.scoring == "mask" and (tokens or shows_masks):
        fitting = [one for several in encoded.values() for one in several if isinstance(one, EncodedPrompt)]
        masks = score_prompts(backend, fitting, sorted(tokens), batch_size=batch_size)
    scores = BlockScores.of(masks)
    answers = []
    for one, rule, reserve in zip(asked, rules, reserves, strict=True):
        words = [(word, rule) for word in one.tokens.values() if not is_simple(word, rule)]
        fitting = [found for found in encoded[reserve] if isinstance(found, EncodedPrompt)]
        scores, _ = score_fills(backend, fitting, words, scores, mask_id=encoder.mask_id, batch_size=batch_size)
        answers.append(_answers(one, rule, encoded[reserve], scores))
    return Answered(tuple(answers), tuple(encoded[0]), tuple(masks)) if shows_masks else Answered(tuple(answers))


def _answers(asked: Words, rule: Rule, encoded: Sequence[EncodedPrompt | Unscorable], scores: BlockScores) -> Answers:
    tokens = list(asked.tokens.values())
    sums = word_sums(scores, _keys(encoded), tokens, rule)
    return Answers(
        sums=sums,
        scores=normalized(sums, tokens, rule, asked.verbalizer),
        log_mass=log_mass(sums, tokens, rule),
        reasons={row: one.reason for row, one in enumerate(encoded) if isinstance(one, Unscorable)},
    )


def _keys(encoded: Sequence[EncodedPrompt | Unscorable]) -> Keys:
    """Prompt keys, empty where a prompt cannot be scored."""
    keys = [one.key.encode() if isinstance(one, EncodedPrompt) else b"" for one in encoded]
    return np.array(keys, dtype=f"S{KEY_BYTES}")
