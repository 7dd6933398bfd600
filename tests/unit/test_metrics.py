"""Metrics against scikit-learn, and rows that could not be scored."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from promptlab.metrics import UNSCORED, Outcome, measure
from promptlab.registry import METRICS


def outcome_of(gold: list[int], predicted: list[int], num_labels: int = 3) -> Outcome:
    """An outcome whose probabilities favour the predicted label; unscored rows are uniform."""
    probabilities = np.full((len(gold), num_labels), 1 / num_labels)
    for row, label in enumerate(predicted):
        if label != UNSCORED:
            probabilities[row] = 0.1 / (num_labels - 1)
            probabilities[row, label] = 0.9
    return Outcome(np.array(gold), np.array(predicted), probabilities)


GOLD = [0, 0, 1, 1, 2, 2, 2, 0]
PREDICTED = [0, 1, 1, 2, 2, 2, 2, 1]


def test_accuracy_is_scikit_learns() -> None:
    """The share of rows predicted right."""
    assert accuracy_score(GOLD, PREDICTED) == measure("accuracy", outcome_of(GOLD, PREDICTED), seed=0).value


def test_macro_f1_is_scikit_learns() -> None:
    """The mean over labels of F1."""
    known = f1_score(GOLD, PREDICTED, average="macro")
    assert known == pytest.approx(measure("macro_f1", outcome_of(GOLD, PREDICTED), seed=0).value, abs=1e-12)


def test_nll_is_scikit_learns() -> None:
    """The mean negative log-probability of the gold label."""
    outcome = outcome_of(GOLD, PREDICTED)
    known = log_loss(GOLD, outcome.probabilities)
    assert known == pytest.approx(measure("nll", outcome, seed=0).value, abs=1e-12)


def test_unscored_rows_are_wrong_and_uniform() -> None:
    """A row that could not be scored is a class of its own for accuracy and F1, and uniform for the likelihood."""
    outcome = outcome_of([0, 1, 2], [0, UNSCORED, UNSCORED])
    assert pytest.approx(1 / 3) == measure("accuracy", outcome, seed=0).value
    known = f1_score([0, 1, 2], [0, UNSCORED, UNSCORED], labels=[0, 1, 2], average="macro", zero_division=0)
    assert known == pytest.approx(measure("macro_f1", outcome, seed=0).value)
    expected = (-np.log(0.9) + 2 * np.log(3)) / 3
    assert expected == pytest.approx(measure("nll", outcome, seed=0).value)


def test_f1_of_a_label_that_is_nowhere_is_zero() -> None:
    """A label that is neither gold nor predicted counts as 0, so a missing class cannot raise the mean."""
    outcome = outcome_of([0, 0, 1], [0, 0, 1])
    known = f1_score([0, 0, 1], [0, 0, 1], labels=[0, 1, 2], average="macro", zero_division=0)
    assert known == pytest.approx(measure("macro_f1", outcome, seed=0).value)
    assert pytest.approx(2 / 3) == known


def test_a_probability_of_zero_is_a_large_loss_not_an_infinite_one() -> None:
    """No metric is infinite: nothing stored may be."""
    outcome = Outcome(np.array([0]), np.array([1]), np.array([[0.0, 1.0]]))
    assert 600 < measure("nll", outcome, seed=0).value < 800


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_has_an_interval_around_its_value(name: str) -> None:
    """Value and interval agree, and equal seeds give equal intervals."""
    outcome = outcome_of(GOLD * 5, PREDICTED * 5)
    found = measure(name, outcome, seed=2)
    assert found.interval.low <= found.value <= found.interval.high
    assert found == measure(name, outcome, seed=2)


def test_which_way_is_good() -> None:
    """A loss is better when lower."""
    outcome = outcome_of(GOLD, PREDICTED)
    found = {name: measure(name, outcome, seed=0).higher_is_better for name in ("accuracy", "macro_f1", "nll")}
    assert found == {"accuracy": True, "macro_f1": True, "nll": False}
