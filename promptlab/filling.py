"""Word of several tokens -> the fills of its slots that a rule asks about, and from their scores that of the word.

A rule is walked in the same way when it is asked what to score and when it is asked what the scores mean, so that the
two cannot differ. Needs no model.

| rule | what is summed over the tokens t of a word |
|---|---|
| `independent` | log p(t), every token of the word masked |
| `left_to_right` | log p(t), the tokens before it in place, it and those behind it masked (Kauf and Ivanova 2023) |
| `pet` | log p(t), the likeliest token put in place first (Schick and Schuetze 2021, section 3.1) |
| `first_token` | log p(t) of the first token alone, one mask in the slot |
| `original` | log p(t is original) by a replaced-token detector, the whole word in place (Xia et al. 2022) |
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptlab.specs.run import Scoring
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Fill, FilledPrompt, WordTokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

    from promptlab.block_scores import BlockScores, Keys

Rule = Literal["independent", "left_to_right", "pet", "first_token", "original"]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Prompts of which a fill is asked, at the same positions with the same tokens.

    `depth` is how many tokens were put in place before; `rows` are places in the keys that were walked; `is_missing`
    says which of them are not scored yet; `num_to_come` is how many further fills each will ask at most.
    """

    fill: Fill
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    depth: int
    rows: Int64[np.ndarray, " prompt"]
    is_missing: Bool[np.ndarray, " prompt"]
    num_to_come: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """A word walked over prompts: the sum of log-probabilities, NaN where one is missing, and all that was asked."""

    log_probs: Float64[np.ndarray, " prompt"]
    asked: tuple[Asked, ...]


def rule_of(verbalizer: Verbalizer, scoring: Scoring) -> Rule:
    """The rule by which the words of a verbalizer are scored; `refuse` asks every slot of a prompt at once."""
    if scoring == "replaced_token":
        return "original"
    return "independent" if verbalizer.multi_token == "refuse" else verbalizer.multi_token


def scored_slots(word: WordTokens, rule: Rule) -> tuple[tuple[int, ...], ...]:
    """The tokens of a word that a rule looks at, slot by slot."""
    return tuple(slot[:1] for slot in word.slots) if rule == "first_token" else word.slots


def scored_pieces(word: WordTokens, rule: Rule) -> tuple[int, ...]:
    """The tokens of a word that a rule looks at, over all slots."""
    return tuple(itertools.chain.from_iterable(scored_slots(word, rule)))


def reserve_of(words: Iterable[WordTokens], rule: Rule) -> int:
    """How many tokens longer a prompt gets by the longest of the words: so much room must be left free."""
    return max((len(scored_pieces(word, rule)) - len(word.slots) for word in words), default=0)


def plain_tokens(words: Iterable[WordTokens], rule: Rule) -> set[int]:
    """The tokens that are asked about where every slot has one mask, which is how prompts are scored anyway."""
    return {token for word in words if _start(word, rule).is_plain for token in scored_pieces(word, rule)}


def is_simple(word: WordTokens, rule: Rule) -> bool:
    """Whether a word is one token at the one mask of a prompt: what every prompt is scored for anyway."""
    return len(word.slots) == 1 and _start(word, rule).is_plain


def walk(word: WordTokens, rule: Rule, keys: Keys, scores: BlockScores) -> Walked:
    """Follow a word through the fills that a rule asks about, prompt by prompt.

    Args:
        word: the tokens of the word.
        rule: which fills, and what comes after which.
        keys: prompts, of which each has a key.
        scores: what is scored; what is missing ends the way of a prompt only where the way depends on it.
    """
    pieces, total, asked = scored_pieces(word, rule), np.zeros(len(keys)), list[Asked]()
    todo = [(_start(word, rule), np.arange(len(keys)))]
    while todo:
        fill, rows = todo.pop(0)
        positions = _positions(fill, rule)
        found = np.stack([scores.take_fill(keys[rows], (fill, at, pieces[at])) for at in positions], axis=1)
        is_missing = np.isnan(found).any(axis=1)
        depth, to_come = _depth(fill, rule), 0 if rule not in _STEPS else len(_masked(fill)) - 1
        tokens = tuple(pieces[at] for at in positions)
        asked.append(Asked(fill, positions, tokens, depth, rows, is_missing, to_come))
        if rule not in _STEPS:
            total[rows] += found.sum(axis=1)
            continue
        chosen = np.where(is_missing, 0, np.argmax(np.where(np.isnan(found), -np.inf, found), axis=1))
        total[rows] += np.where(is_missing, np.nan, found[np.arange(len(rows)), chosen])
        goes_on = ~is_missing if rule == "pet" else np.ones(len(rows), dtype=bool)
        todo += _further(fill, pieces, positions, rows[goes_on], chosen[goes_on])
    return Walked(total, tuple(asked))


def word_sums(
    scores: BlockScores, keys: Keys, words: Sequence[WordTokens], rule: Rule
) -> Float64[np.ndarray, "row word"]:
    """Sum of log-probabilities over the tokens of each word; NaN in rows without a key, or where one is missing."""
    sums = np.full((len(keys), len(words)), np.nan)
    simple = [n for n, word in enumerate(words) if is_simple(word, rule)]
    sums[:, simple] = scores.take(keys, [scored_pieces(words[n], rule)[0] for n in simple])
    for number in sorted(set(range(len(words))) - set(simple)):
        sums[:, number] = walk(words[number], rule, keys, scores).log_probs
    return sums


def normalized(
    sums: Float64[np.ndarray, "row word"], words: Sequence[WordTokens], rule: Rule, verbalizer: Verbalizer
) -> Float64[np.ndarray, "row word"]:
    """Sums over tokens, or means where the verbalizer says so."""
    if verbalizer.normalize == "sum":
        return sums
    means: Float64[np.ndarray, "row word"] = sums / np.array([len(scored_pieces(word, rule)) for word in words])
    return means


def asked_at(
    words: Sequence[tuple[WordTokens, Rule]], keys: Keys, scores: BlockScores, depth: int
) -> list[Asked] | None:
    """What words ask about prompts beyond their plain masks, with so many tokens in place; None where nothing is left.

    What is asked at one depth can hang on the scores of the one before it.
    """
    asked = [one for word, rule in words for one in walk(word, rule, keys, scores).asked if not one.fill.is_plain]
    if all(one.depth < depth for one in asked):
        return None
    return [one for one in asked if one.depth == depth]


def count_missing_fills(words: Sequence[tuple[WordTokens, Rule]], keys: Keys, scores: BlockScores) -> int:
    """How many filled prompts are not scored yet, at most: later fills that hang on missing scores are all counted."""
    fills: dict[Fill, Bool[np.ndarray, " prompt"]] = {}
    to_come = 0
    for word, rule in words:
        for one in walk(word, rule, keys, scores).asked:
            if not one.fill.is_plain:
                missing = fills.setdefault(one.fill, np.zeros(len(keys), dtype=bool))
                missing[one.rows[one.is_missing]] = True
            if rule == "pet":
                to_come += int(one.is_missing.sum()) * one.num_to_come
    return to_come + sum(int(missing.sum()) for missing in fills.values())


def count_fills(words: Iterable[tuple[WordTokens, Rule]]) -> int:
    """How many fills beyond the plain masks words ask of each prompt, at most: each is a forward pass of its own."""
    fills: set[Fill] = set()
    number = 0
    for word, rule in words:
        start, length = _start(word, rule), len(scored_pieces(word, rule))
        fills |= set() if start.is_plain else {start}
        if rule == "left_to_right":
            fills |= {_placed(start, dict(enumerate(word.pieces[:done]))) for done in range(1, length)}
        elif rule == "pet":
            number += length - 1
    return number + len(fills)


def fill_prompt(
    prompt: EncodedPrompt, fill: Fill, questions: Sequence[tuple[int, int]], *, mask_id: int
) -> FilledPrompt:
    """An encoded prompt with a fill in place of its masks.

    Args:
        prompt: has a mask a slot.
        fill: what goes there.
        questions: positions of the fill, and the tokens that are asked about.
        mask_id: the token of a mask.
    """
    ids, segment_ids, places, start, length = list[Any](), list[Any](), list[int](), 0, 0
    for mask, slot in zip(prompt.mask_positions, fill.slots, strict=True):
        ids += [prompt.input_ids[start:mask], [mask_id if piece is None else piece for piece in slot]]
        segment_ids += [prompt.segment_ids[start:mask], [prompt.segment_ids[mask]] * len(slot)]
        length += mask - start
        places += range(length, length + len(slot))
        start, length = mask + 1, length + len(slot)
    return FilledPrompt(
        key=prompt.key,
        fill=fill,
        input_ids=np.concatenate([*ids, prompt.input_ids[start:]]).astype(np.int32),
        segment_ids=np.concatenate([*segment_ids, prompt.segment_ids[start:]]).astype(np.int32),
        positions=tuple(position for position, _ in questions),
        asked=tuple(places[position] for position, _ in questions),
        token_ids=tuple(token for _, token in questions),
    )


_STEPS = ("left_to_right", "pet")  # rules that put one token after the other in place


def _start(word: WordTokens, rule: Rule) -> Fill:
    """The fill that a rule asks about first."""
    if rule == "original":
        return Fill(word.slots)
    return Fill(tuple((None,) * len(slot) for slot in scored_slots(word, rule)))


def _positions(fill: Fill, rule: Rule) -> tuple[int, ...]:
    """The positions of a fill that a rule asks about."""
    if rule not in _STEPS:
        return tuple(range(len(fill.pieces)))
    masked = _masked(fill)
    return masked[:1] if rule == "left_to_right" else masked


def _masked(fill: Fill) -> tuple[int, ...]:
    return tuple(position for position, piece in enumerate(fill.pieces) if piece is None)


def _depth(fill: Fill, rule: Rule) -> int:
    """How many tokens were put in place one after the other."""
    return len(fill.pieces) - len(_masked(fill)) if rule in _STEPS else 0


def _further(
    fill: Fill,
    pieces: Sequence[int],
    positions: Sequence[int],
    rows: Int64[np.ndarray, " prompt"],
    chosen: Int64[np.ndarray, " prompt"],
) -> list[tuple[Fill, Int64[np.ndarray, " prompt"]]]:
    """The fills with the chosen token in place, each with its prompts; none once no mask is left."""
    if len(_masked(fill)) == 1:
        return []
    groups = ((positions[number], rows[chosen == number]) for number in np.unique(chosen))
    return [(_placed(fill, {at: pieces[at]}), group) for at, group in groups]


def _placed(fill: Fill, new: Mapping[int, int]) -> Fill:
    """A fill with tokens in some positions."""
    pieces = iter(new.get(position, piece) for position, piece in enumerate(fill.pieces))
    return Fill(tuple(tuple(next(pieces) for _ in slot) for slot in fill.slots))
