"""Log-probabilities of words in the slots -> label scores: which label the words speak for.

Needs no model: any verbalizer can be tried on a stored block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, logsumexp

from promptlab.errors import LabelWordError
from promptlab.filling import Rule, scored_slots
from promptlab.specs.verbalizer import Pool, Verbalizer
from promptlab.types import WordTokens

if TYPE_CHECKING:
    from jaxtyping import Float64


def pool_labels(
    word_scores: Float64[np.ndarray, "row word"], verbalizer: Verbalizer, labels: tuple[str, ...]
) -> Float64[np.ndarray, "row label"]:
    """Label scores s(x, y), natural logarithms that are not normalised over labels.

    Args:
        word_scores: one column a word of `verbalizer.words`, in their order; NaN in rows that could not be scored.
        verbalizer: which words stand for which label, their weights and how they are pooled.
        labels: the task's labels, in order.
    """
    columns, start = {}, 0
    for label, words in verbalizer.labels.items():
        columns[label] = slice(start, start + len(words))
        start += len(words)
    weights = {label: np.array([word.weight for word in words]) for label, words in verbalizer.labels.items()}
    pooled = [pool(word_scores[:, columns[label]], weights[label], verbalizer.pool) for label in labels]
    return np.stack(pooled, axis=1)


def pool(
    word_scores: Float64[np.ndarray, "row word"], weights: Float64[np.ndarray, " word"], rule: Pool
) -> Float64[np.ndarray, " row"]:
    """One score a row from the log-probabilities of a label's words.

    `mean_logprob` is the weighted mean of log-probabilities (OpenPrompt, KPT), `sum_prob` the log of the weighted
    sum of probabilities, `max` the largest weighted log-probability (log w + log p). A single word of weight 1 is
    the same under all three.
    """
    pooled: Float64[np.ndarray, " row"]
    if rule == "mean_logprob":
        pooled = word_scores @ (weights / weights.sum())
    elif rule == "sum_prob":
        pooled = logsumexp(word_scores + np.log(weights), axis=1)
    else:
        pooled = (word_scores + np.log(weights)).max(axis=1)
    return pooled


def log_mass(
    sums: Float64[np.ndarray, "row word"], words: Sequence[WordTokens], rule: Rule
) -> Float64[np.ndarray, " row"]:
    """Log-probability that the distinct words of all labels have together in the slots of each row.

    NaN where they have none: words with unlike numbers of tokens in a slot answer different questions, the order of
    `pet` depends on the word, and a replaced-token detector has no distribution over words.

    Args:
        sums: log-probabilities summed over the tokens of each word, whatever the verbalizer makes of them.
        words: the tokens of each word.
        rule: how they were scored.
    """
    slots = [scored_slots(word, rule) for word in words]
    lengths = {tuple(map(len, of_word)) for of_word in slots}
    if rule == "original" or len(lengths) != 1 or (rule == "pet" and lengths != {(1,)}):
        return np.full(len(sums), np.nan)
    first = {tokens: number for number, tokens in reversed(list(enumerate(slots)))}
    mass: Float64[np.ndarray, " row"] = logsumexp(sums[:, sorted(first.values())], axis=1)
    return mass


def require_words(
    found: Mapping[str, WordTokens | str], verbalizer: Verbalizer, *, where: str
) -> dict[str, WordTokens]:
    """The tokens of a verbalizer's words, from a map that holds the reason where a word has none.

    Raises:
        LabelWordError: some have none, or several where the verbalizer has no rule for that; every one is named.
    """
    faults = word_faults(found, verbalizer)
    if faults:
        raise LabelWordError("\n".join(f"{where}: {fault}" for fault in faults.values()))
    return usable_words(found, verbalizer)


def word_faults(found: Mapping[str, WordTokens | str], verbalizer: Verbalizer) -> dict[str, str]:
    """Why a verbalizer cannot use some of its words."""
    return {word: fault for word in verbalizer.words if (fault := _fault(word, found[word], verbalizer)) is not None}


def usable_words(found: Mapping[str, WordTokens | str], verbalizer: Verbalizer) -> dict[str, WordTokens]:
    """The tokens of the words that a verbalizer can use, in their order."""
    faults = word_faults(found, verbalizer)
    wanted = (word for word in verbalizer.words if word not in faults)
    return {word: tokens for word in wanted if isinstance(tokens := found[word], WordTokens)}


def check_collisions(
    verbalizer: Verbalizer,
    words: Mapping[str, WordTokens],
    rule: Rule,
    *,
    spell: Callable[[int], str] | None = None,
) -> None:
    """Refuse a verbalizer two of whose words are the same tokens here: "Yes" and "yes" in an uncased vocabulary.

    Under `first_token` words that begin with the same token are the same.

    Args:
        verbalizer: the words.
        words: the tokens of each.
        rule: which of them are looked at.
        spell: how the vocabulary spells a token, where there is a tokenizer to ask.
    """
    owner: dict[tuple[tuple[int, ...], ...], tuple[str, str]] = {}
    for label, several in verbalizer.labels.items():
        for word in several:
            slots = scored_slots(words[word.word], rule)
            if slots in owner:
                other_label, other = owner[slots]
                tokens = [token for slot in slots for token in slot]
                is_first = rule == "first_token" and (words[word.word].is_split or words[other].is_split)
                named = " ".join(map(str, tokens))
                same = "begin with" if is_first else "are"
                shown = f"the same token{'s' if len(tokens) > 1 else ''} {named} here"
                spelled = f" (both become {' '.join(map(spell, tokens))})" if spell is not None else ""
                looks = ", and 'first_token' looks at no other" if is_first else ""
                raise LabelWordError(
                    f"{verbalizer.path}: '{other}' of label '{other_label}' and '{word.word}' of label '{label}' "
                    f"{same} {shown}{spelled}{looks}: use another word for one of them."
                )
            owner[slots] = (label, word.word)


def label_probabilities(scores: Float64[np.ndarray, "row label"]) -> Float64[np.ndarray, "row label"]:
    """p(y | x) = softmax over labels of s(x, y); NaN rows stay NaN."""
    probabilities: Float64[np.ndarray, "row label"] = np.exp(log_softmax(scores, axis=1))
    return probabilities


def _fault(word: str, found: WordTokens | str, verbalizer: Verbalizer) -> str | None:
    """Why a verbalizer cannot use a word, or None."""
    if isinstance(found, str):
        return found
    if found.is_split and verbalizer.multi_token == "refuse":
        return (
            f"label word '{word}' {found.split}: use a word that is one token, or name a rule for several by "
            "@left_to_right behind the verbalizer."
        )
    return None
