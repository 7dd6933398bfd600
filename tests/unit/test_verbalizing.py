"""Label words at the mask become label scores, against a plain loop over rows and words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from promptlab.errors import LabelWordError
from promptlab.specs.verbalizer import Pool, Verbalizer
from promptlab.types import WordTokens
from promptlab.verbalizing import check_collisions, label_probabilities, log_mass, pool_labels, require_words

LABELS = ("negative", "positive")
WORDS = {"negative": {"bad": 1.0, "awful": 0.5}, "positive": {"good": 2.0}}
NAMES = ("bad", "awful", "good")
# p(bad), p(awful) and p(good) at the mask of each row.
PROBABILITIES = np.array([[0.2, 0.05, 0.3], [0.08, 0.02, 0.01]])


def tokens_of(*ids: int) -> list[WordTokens]:
    """Words that are one token each."""
    return [WordTokens(((token,),)) for token in ids]


WORD_TOKENS = tokens_of(11, 12, 13)


def verbalizer(pool: Pool = "mean_logprob", labels: dict[str, Any] | None = None) -> Verbalizer:
    """The verbalizer of the tests."""
    return Verbalizer.from_labels(labels or WORDS, pool=pool, name="words")


def naive(pool: Pool, row: int, label: str) -> float:
    """One label score, by hand."""
    columns = dict(zip(NAMES, PROBABILITIES[row], strict=True))
    pairs = [(weight, columns[word]) for word, weight in WORDS[label].items()]
    if pool == "mean_logprob":
        return sum(w * math.log(p) for w, p in pairs) / sum(w for w, _ in pairs)
    weighted = [w * p for w, p in pairs]
    return math.log(sum(weighted) if pool == "sum_prob" else max(weighted))


@pytest.mark.parametrize("pool", ["mean_logprob", "sum_prob", "max"])
def test_every_pool_is_a_plain_loop(pool: Pool) -> None:
    """Each rule gives what a loop over rows, labels and words gives, weights included."""
    found = pool_labels(np.log(PROBABILITIES), verbalizer(pool), LABELS)
    expected = [[naive(pool, row, label) for label in LABELS] for row in range(2)]
    assert np.array(expected) == pytest.approx(found, abs=1e-12)


def test_labels_come_in_the_order_of_the_task() -> None:
    """The verbalizer's own order does not matter: columns follow its words, scores the labels that are asked for."""
    ours = pool_labels(np.log(PROBABILITIES), verbalizer(), LABELS)
    theirs = pool_labels(np.log(PROBABILITIES), verbalizer(), LABELS[::-1])
    assert ours.tolist() == theirs[:, ::-1].tolist()
    turned = verbalizer(labels=dict(reversed(WORDS.items())))
    assert ("good", "bad", "awful") == turned.words
    assert ours == pytest.approx(pool_labels(np.log(PROBABILITIES[:, [2, 0, 1]]), turned, LABELS), abs=1e-12)


def test_mass_is_the_probability_of_the_label_words() -> None:
    """Mass sums the words' probabilities, without their weights."""
    found = log_mass(np.log(PROBABILITIES), WORD_TOKENS, "independent")
    assert [0.2 + 0.05 + 0.3, 0.08 + 0.02 + 0.01] == pytest.approx(np.exp(found), abs=1e-12)


def test_mass_counts_a_token_once() -> None:
    """Two words that are one token here have its probability together, not each."""
    found = log_mass(np.log([[0.2, 0.2, 0.3]]), tokens_of(11, 11, 13), "independent")
    assert [0.5] == pytest.approx(np.exp(found), abs=1e-12)


@pytest.mark.parametrize("pool", ["mean_logprob", "sum_prob", "max"])
def test_a_single_word_is_the_same_under_every_pool(pool: Pool) -> None:
    """One word of weight 1 a label scores its log-probability."""
    scores = np.log(PROBABILITIES[:, [0, 2]])
    found = pool_labels(scores, verbalizer(pool, {"negative": "bad", "positive": "good"}), LABELS)
    assert scores == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("pool", ["mean_logprob", "sum_prob", "max"])
def test_rows_that_could_not_be_scored_stay_unknown(pool: Pool) -> None:
    """A row of NaN gives NaN, and leaves the others as they are."""
    scores = np.vstack([np.full(3, np.nan), np.log(PROBABILITIES)])
    found = pool_labels(scores, verbalizer(pool), LABELS)
    assert [True, False, False] == np.isnan(found).all(axis=1).tolist()
    assert [True, False, False] == np.isnan(label_probabilities(found)).all(axis=1).tolist()
    assert [True, False, False] == np.isnan(log_mass(scores, WORD_TOKENS, "independent")).tolist()
    assert pool_labels(scores[1:], verbalizer(pool), LABELS).tolist() == found[1:].tolist()


def test_words_must_all_be_tokens() -> None:
    """The ids of the words that are asked for, in their order; words that nobody asked for may have none."""
    known = {**dict(zip(("good", "bad"), tokens_of(13, 11), strict=True)), "odd": "label word 'odd' is unknown."}
    asked = verbalizer(labels={"negative": "bad", "positive": "good"})
    assert list(zip(("bad", "good"), tokens_of(11, 13), strict=True)) == list(
        require_words(known, asked, where="it").items()
    )


def test_every_word_without_a_token_is_named() -> None:
    """Each reason is a line with the place in front."""
    known = {"a": "label word 'a' is odd.", "b": tokens_of(3)[0], "c": "label word 'c' is unknown."}
    asked = verbalizer(labels={"negative": ["a", "b"], "positive": "c"})
    with pytest.raises(LabelWordError) as fault:
        require_words(known, asked, where="verbalizers/x.yaml with templates/y.jinja")
    place = "verbalizers/x.yaml with templates/y.jinja"
    assert f"{place}: label word 'a' is odd.\n{place}: label word 'c' is unknown." == str(fault.value)


def test_words_that_meet_in_one_token_are_refused() -> None:
    """Two words that an uncased vocabulary cannot tell apart are named with their labels and the token."""
    cased = verbalizer(labels={"negative": "No", "positive": ["yes", "no"]})
    with pytest.raises(LabelWordError) as fault:
        check_collisions(cased, dict(zip(("No", "yes", "no"), tokens_of(11, 13, 11), strict=True)), "independent")
    assert str(fault.value) == (
        "verbalizer words: 'No' of label 'negative' and 'no' of label 'positive' are the same token 11 here: "
        "use another word for one of them."
    )
    check_collisions(cased, dict(zip(("No", "yes", "no"), tokens_of(11, 13, 12), strict=True)), "independent")


def test_words_meet_where_all_that_is_looked_at_is_the_same() -> None:
    """Slot by slot, and under `first_token` the first tokens alone; a detector looks at whole words in any case."""
    asked = verbalizer(labels={"negative": "a", "positive": "b"})
    apart = {"a": WordTokens(((4, 5), (6,))), "b": WordTokens(((4,), (5, 6)))}
    begun = {"a": WordTokens(((4, 5),)), "b": WordTokens(((4, 6),))}
    for rule in ("independent", "left_to_right", "pet", "original"):
        check_collisions(asked, apart, rule)  # type: ignore[arg-type]  # a rule
        check_collisions(asked, begun, rule)  # type: ignore[arg-type]  # a rule
    check_collisions(asked, apart, "first_token")
    with pytest.raises(LabelWordError, match=r"begin with the same token 4 here, and 'first_token' looks at no other"):
        check_collisions(asked, begun, "first_token")
