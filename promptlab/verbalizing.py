"""Log-probabilities of words at the mask -> label scores: which label the words speak for.

Needs no model: any verbalizer can be tried on a stored block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, logsumexp

from promptlab.errors import LabelWordError
from promptlab.specs.verbalizer import Pool, Verbalizer

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
    word_scores: Float64[np.ndarray, "row word"], word_ids: Mapping[str, int], verbalizer: Verbalizer
) -> Float64[np.ndarray, " row"]:
    """Log-probability that the distinct tokens of all label words have together at the mask of each row."""
    first = {word_ids[word]: number for number, word in reversed(list(enumerate(verbalizer.words)))}
    mass: Float64[np.ndarray, " row"] = logsumexp(word_scores[:, sorted(first.values())], axis=1)
    return mass


def require_words(found: Mapping[str, int | str], words: Iterable[str], *, where: str) -> dict[str, int]:
    """The token ids of words that must all be single tokens, from a map that holds the reason where one is not.

    Raises:
        LabelWordError: some are not; every one is named with its token split.
    """
    faults = [str(found[word]) for word in words if isinstance(found[word], str)]
    if faults:
        raise LabelWordError("\n".join(f"{where}: {fault}" for fault in faults))
    return {word: int(found[word]) for word in words}


def check_collisions(
    verbalizer: Verbalizer, word_ids: Mapping[str, int], *, spell: Callable[[int], str] | None = None
) -> None:
    """Refuse a verbalizer two of whose words are the same token here: "Yes" and "yes" in an uncased vocabulary.

    Args:
        verbalizer: the words.
        word_ids: the token of each.
        spell: how the vocabulary spells a token, where there is a tokenizer to ask.
    """
    owner: dict[int, tuple[str, str]] = {}
    for label, words in verbalizer.labels.items():
        for word in words:
            token = word_ids[word.word]
            if token in owner:
                other_label, other = owner[token]
                spelled = f" (both become {spell(token)})" if spell is not None else ""
                raise LabelWordError(
                    f"{verbalizer.path}: '{other}' of label '{other_label}' and '{word.word}' of label '{label}' are "
                    f"the same token {token} here{spelled}: use another word for one of them."
                )
            owner[token] = (label, word.word)


def label_probabilities(scores: Float64[np.ndarray, "row label"]) -> Float64[np.ndarray, "row label"]:
    """p(y | x) = softmax over labels of s(x, y); NaN rows stay NaN."""
    probabilities: Float64[np.ndarray, "row label"] = np.exp(log_softmax(scores, axis=1))
    return probabilities
