"""For any scores and words, pooling is a plain loop and keeps its order and scale."""

from __future__ import annotations

import math
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.specs.verbalizer import Pool, Verbalizer
from promptlab.types import WordTokens
from promptlab.verbalizing import label_probabilities, log_mass, pool, pool_labels

checked = settings(max_examples=60, deadline=None, derandomize=True, database=None)
log_probs = st.floats(-60, 0, allow_nan=False)
weights = st.floats(0.01, 100)
words = st.lists(st.tuples(log_probs, weights), min_size=1, max_size=5)
rules = st.sampled_from(["mean_logprob", "sum_prob", "max"])
labelled = st.lists(words, min_size=2, max_size=4)


def pooled(pairs: list[tuple[float, float]], rule: Pool) -> float:
    """The pooled score of one row."""
    scores = np.array([[score for score, _ in pairs]])
    return float(pool(scores, np.array([weight for _, weight in pairs]), rule)[0])


@checked
@given(pairs=words, rule=rules)
def test_pooling_is_a_plain_loop(pairs: list[tuple[float, float]], rule: Pool) -> None:
    """Each rule is its formula, term by term."""
    if rule == "mean_logprob":
        expected = sum(w * s for s, w in pairs) / sum(w for _, w in pairs)
    elif rule == "sum_prob":
        expected = math.log(math.fsum(w * math.exp(s) for s, w in pairs))
    else:
        expected = max(math.log(w) + s for s, w in pairs)
    assert math.isclose(expected, pooled(pairs, rule), abs_tol=1e-9)


@checked
@given(pairs=words, rule=rules)
def test_the_order_of_words_does_not_matter(pairs: list[tuple[float, float]], rule: Pool) -> None:
    """Words of a label are a set."""
    assert math.isclose(pooled(pairs, rule), pooled(pairs[::-1], rule), abs_tol=1e-9)


@checked
@given(pairs=words, factor=weights, rule=rules)
def test_a_common_factor_moves_every_label_alike(pairs: list[tuple[float, float]], factor: float, rule: Pool) -> None:
    """Weights times a factor change no decision: a mean stays, a sum and a maximum move by the factor's logarithm."""
    moved = pooled([(score, weight * factor) for score, weight in pairs], rule)
    expected = pooled(pairs, rule) + (0.0 if rule == "mean_logprob" else math.log(factor))
    assert math.isclose(expected, moved, abs_tol=1e-9)


@checked
@given(scores=st.lists(st.lists(log_probs, min_size=3, max_size=3), min_size=1, max_size=4), shift=log_probs)
def test_label_probabilities_are_a_softmax(scores: list[list[float]], shift: float) -> None:
    """Probabilities sum to one and do not change when every score of a row moves alike."""
    found = label_probabilities(np.array(scores))
    assert np.allclose(1, found.sum(axis=1))
    assert np.allclose(found, label_probabilities(np.array(scores) + shift))


@checked
@given(labels=labelled, rule=rules, turn=st.randoms(use_true_random=False))
def test_labels_are_pooled_from_their_own_words(
    labels: list[list[tuple[float, float]]], rule: Pool, turn: random.Random
) -> None:
    """Whatever the labels' words and the order in which labels are asked for, each has the pool of its own words."""
    named = {f"l{number}": {f"w{number}.{place}": weight for place, (_, weight) in enumerate(pairs)}
             for number, pairs in enumerate(labels)}  # fmt: skip
    verbalizer = Verbalizer.from_labels(named, pool=rule, name="words")
    scores = np.array([[score for pairs in labels for score, _ in pairs]])
    order = turn.sample(list(named), len(named))
    found = pool_labels(scores, verbalizer, tuple(order))[0]
    expected = [pooled(labels[int(label[1:])], rule) for label in order]
    assert np.allclose(expected, found, atol=1e-9)


@checked
@given(scores=st.lists(log_probs, min_size=4, max_size=4), tokens=st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_mass_is_a_sum_over_distinct_tokens(scores: list[float], tokens: list[int]) -> None:
    """Words that are one token have one score, which counts once."""
    words = [WordTokens(((token,),)) for token in tokens]
    by_token = [[scores[token] for token in tokens]]
    expected = math.log(math.fsum(math.exp(scores[token]) for token in set(tokens)))
    assert math.isclose(expected, log_mass(np.array(by_token), words, "independent")[0], abs_tol=1e-9)
