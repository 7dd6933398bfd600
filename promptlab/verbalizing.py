"""MaskScores + a map from word to token id -> LabelScores: which label the words at the mask speak for.

Needs no model: any verbalizer can be tried on a stored block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, logsumexp

from promptlab.errors import LabelWordError
from promptlab.specs.verbalizer import Pool, Verbalizer
from promptlab.types import LabelScores

if TYPE_CHECKING:
    from jaxtyping import Float64


def verbalize(
    log_probs: Float64[np.ndarray, "row candidate"],
    token_ids: Mapping[int, int],
    verbalizer: Verbalizer,
    word_ids: Mapping[str, int],
    labels: tuple[str, ...],
) -> LabelScores:
    """Label scores s(x, y) from the log-probabilities of tokens at the mask.

    Args:
        log_probs: natural log-probabilities over the full vocabulary, NaN in rows that could not be scored.
        token_ids: column of `log_probs` for each token id.
        verbalizer: label words, weights and pooling.
        word_ids: token id of each label word in this template's context.
        labels: the task's labels, in order.

    Raises:
        LabelWordError: two labels meet in one token.
    """
    check_collisions(verbalizer, word_ids)
    scores = np.stack([_pool_label(log_probs, token_ids, verbalizer, word_ids, label) for label in labels], axis=1)
    columns = sorted({token_ids[word_ids[word]] for word in verbalizer.words})
    return LabelScores(labels, scores, logsumexp(log_probs[:, columns], axis=1))


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


def check_collisions(verbalizer: Verbalizer, word_ids: Mapping[str, int]) -> None:
    """Refuse a verbalizer two of whose words are the same token here: "Yes" and "yes" in an uncased vocabulary."""
    owner: dict[int, tuple[str, str]] = {}
    for label, words in verbalizer.labels.items():
        for word in words:
            token = word_ids[word.word]
            if token in owner:
                other_label, other = owner[token]
                raise LabelWordError(
                    f"{verbalizer.path}: '{other}' of label '{other_label}' and '{word.word}' of label '{label}' are "
                    f"the same token {token} here: use another word for one of them."
                )
            owner[token] = (label, word.word)


def label_probabilities(scores: Float64[np.ndarray, "row label"]) -> Float64[np.ndarray, "row label"]:
    """p(y | x) = softmax over labels of s(x, y); NaN rows stay NaN."""
    probabilities: Float64[np.ndarray, "row label"] = np.exp(log_softmax(scores, axis=1))
    return probabilities


def _pool_label(
    log_probs: Float64[np.ndarray, "row candidate"],
    token_ids: Mapping[int, int],
    verbalizer: Verbalizer,
    word_ids: Mapping[str, int],
    label: str,
) -> Float64[np.ndarray, " row"]:
    words = verbalizer.labels[label]
    columns = [token_ids[word_ids[word.word]] for word in words]
    weights = np.array([word.weight for word in words], dtype=np.float64)
    return pool(log_probs[:, columns], weights, verbalizer.pool)
