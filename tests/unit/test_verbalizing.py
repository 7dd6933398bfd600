"""Label words at the mask become label scores, against a plain loop over rows and words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from promptlab.errors import LabelWordError
from promptlab.specs.verbalizer import Pool, Verbalizer
from promptlab.verbalizing import label_probabilities, verbalize

LABELS = ("negative", "positive")
WORDS = {"negative": {"bad": 1.0, "awful": 0.5}, "positive": {"good": 2.0}}
WORD_IDS = {"bad": 11, "awful": 12, "good": 13}
COLUMNS = {13: 0, 99: 1, 11: 2, 12: 3}
PROBABILITIES = np.array([[0.3, 0.1, 0.2, 0.05], [0.01, 0.6, 0.08, 0.02]])


def verbalizer(pool: Pool = "mean_logprob", labels: dict[str, Any] | None = None) -> Verbalizer:
    """The verbalizer of the tests."""
    return Verbalizer.from_labels(labels or WORDS, pool=pool, name="words")


def naive(pool: Pool, row: int, label: str) -> float:
    """One label score, by hand."""
    pairs = [(weight, PROBABILITIES[row, COLUMNS[WORD_IDS[word]]]) for word, weight in WORDS[label].items()]
    if pool == "mean_logprob":
        return sum(w * math.log(p) for w, p in pairs) / sum(w for w, _ in pairs)
    weighted = [w * p for w, p in pairs]
    return math.log(sum(weighted) if pool == "sum_prob" else max(weighted))


@pytest.mark.parametrize("pool", ["mean_logprob", "sum_prob", "max"])
def test_every_pool_is_a_plain_loop(pool: Pool) -> None:
    """Each rule gives what a loop over rows, labels and words gives, weights included."""
    found = verbalize(np.log(PROBABILITIES), COLUMNS, verbalizer(pool), WORD_IDS, LABELS)
    expected = [[naive(pool, row, label) for label in LABELS] for row in range(2)]
    assert np.array(expected) == pytest.approx(found.scores, abs=1e-12)


def test_labels_come_in_the_order_of_the_task() -> None:
    """The verbalizer's own order does not matter."""
    ours = verbalize(np.log(PROBABILITIES), COLUMNS, verbalizer(), WORD_IDS, LABELS)
    theirs = verbalize(np.log(PROBABILITIES), COLUMNS, verbalizer(), WORD_IDS, LABELS[::-1])
    assert ours.scores.tolist() == theirs.scores[:, ::-1].tolist()


def test_mass_is_the_probability_of_the_label_words() -> None:
    """Mass sums the verbalizer's own tokens, without their weights and without other stored tokens."""
    found = verbalize(np.log(PROBABILITIES), COLUMNS, verbalizer(), WORD_IDS, LABELS)
    assert [0.3 + 0.2 + 0.05, 0.01 + 0.08 + 0.02] == pytest.approx(np.exp(found.log_mass), abs=1e-12)


@pytest.mark.parametrize("pool", ["mean_logprob", "sum_prob", "max"])
def test_a_single_word_is_the_same_under_every_pool(pool: Pool) -> None:
    """One word of weight 1 a label scores its log-probability."""
    single = verbalizer(pool, {"negative": "bad", "positive": "good"})
    found = verbalize(np.log(PROBABILITIES), COLUMNS, single, WORD_IDS, LABELS)
    assert np.log(PROBABILITIES[:, [2, 0]]) == pytest.approx(found.scores, abs=1e-12)


def test_rows_that_could_not_be_scored_stay_unknown() -> None:
    """A row of NaN gives NaN, and leaves the others as they are."""
    log_probs = np.vstack([np.full(4, np.nan), np.log(PROBABILITIES)])
    found = verbalize(log_probs, COLUMNS, verbalizer(), WORD_IDS, LABELS)
    assert [True, False, False] == np.isnan(found.scores).all(axis=1).tolist()
    assert [True, False, False] == np.isnan(label_probabilities(found.scores)).all(axis=1).tolist()
    assert np.isnan(found.log_mass[0])


def test_words_that_meet_in_one_token_are_refused() -> None:
    """Two words that an uncased vocabulary cannot tell apart are named with their labels and the token."""
    cased = verbalizer(labels={"negative": "No", "positive": ["yes", "no"]})
    with pytest.raises(LabelWordError) as fault:
        verbalize(np.log(PROBABILITIES), COLUMNS, cased, {"No": 11, "yes": 13, "no": 11}, LABELS)
    assert str(fault.value) == (
        "verbalizer words: 'No' of label 'negative' and 'no' of label 'positive' are the same token 11 here: "
        "use another word for one of them."
    )
