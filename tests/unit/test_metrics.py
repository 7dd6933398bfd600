"""Metrics against scikit-learn, rows that could not be scored, and names that ask for what there is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef

from promptlab.errors import UsageError
from promptlab.metrics import UNSCORED, Measured, Outcome, check_metric, compare, measure
from promptlab.registry import METRICS
from promptlab.statistics import Interval
from promptlab.statistics.paired import paired_accuracy, paired_difference

LABELS = ("ham", "spam", "other")
NAMES = [name if name != "f1" else "f1(spam)" for name in METRICS.names()]


def outcome_of(gold: list[int], predicted: list[int]) -> Outcome:
    """An outcome whose probabilities favour the predicted label; unscored rows are uniform."""
    probabilities = np.full((len(gold), 3), 1 / 3)
    for row, label in enumerate(predicted):
        if label != UNSCORED:
            probabilities[row] = 0.05
            probabilities[row, label] = 0.9
    return Outcome(np.array(gold), np.array(predicted), probabilities, LABELS)


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


def test_f1_of_a_label_is_scikit_learns() -> None:
    """The label is named in parentheses."""
    outcome = outcome_of(GOLD, PREDICTED)
    known = f1_score(GOLD, PREDICTED, average=None)
    found = [measure(f"f1({label})", outcome, seed=0).value for label in LABELS]
    assert known.tolist() == pytest.approx(found, abs=1e-12)


def test_matthews_is_scikit_learns() -> None:
    """The correlation of gold and predicted label, a row without prediction as a class of its own."""
    predicted = [UNSCORED, *PREDICTED[1:]]
    known = matthews_corrcoef(GOLD, predicted)
    assert known == pytest.approx(measure("matthews", outcome_of(GOLD, predicted), seed=0).value, abs=1e-12)


def test_brier_is_the_sum_of_squares() -> None:
    """The mean over rows of the squared distance between probabilities and the gold label's corner."""
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=8)
    outcome = Outcome(np.array(GOLD), probabilities.argmax(axis=1), probabilities, LABELS)
    known = np.mean([((row - np.eye(3)[label]) ** 2).sum() for row, label in zip(probabilities, GOLD, strict=True)])
    assert known == pytest.approx(measure("brier", outcome, seed=0).value, abs=1e-12)


def test_unscored_rows_are_wrong_and_uniform() -> None:
    """A row that could not be scored is a class of its own for accuracy and F1, and uniform for the likelihood."""
    outcome = outcome_of([0, 1, 2], [0, UNSCORED, UNSCORED])
    assert pytest.approx(1 / 3) == measure("accuracy", outcome, seed=0).value
    known = f1_score([0, 1, 2], [0, UNSCORED, UNSCORED], labels=[0, 1, 2], average="macro", zero_division=0)
    assert known == pytest.approx(measure("macro_f1", outcome, seed=0).value)
    expected = (-np.log(0.9) + 2 * np.log(3)) / 3
    assert expected == pytest.approx(measure("nll", outcome, seed=0).value)


def test_unscored_rows_are_uniform_for_brier_and_for_calibration() -> None:
    """Such a row is as far off as a uniform guess, and is wrong with the confidence of one."""
    outcome = outcome_of([0, 1, 2], [0, UNSCORED, UNSCORED])
    scored, unscored = 0.1**2 + 2 * 0.05**2, (2 / 3) ** 2 + 2 * (1 / 3) ** 2
    assert (scored + 2 * unscored) / 3 == pytest.approx(measure("brier", outcome, seed=0).value)
    assert (abs(1 - 0.9) + 2 * abs(0 - 1 / 3)) / 3 == pytest.approx(measure("ece", outcome, seed=0).value)
    nothing = outcome_of([0, 1, 2, 0], [UNSCORED] * 4)
    assert 1 / 3 == pytest.approx(measure("ece_debiased", nothing, seed=0).value)


def test_f1_of_a_label_that_is_nowhere_is_zero() -> None:
    """A label that is neither gold nor predicted counts as 0, so a missing class cannot raise the mean."""
    outcome = outcome_of([0, 0, 1], [0, 0, 1])
    known = f1_score([0, 0, 1], [0, 0, 1], labels=[0, 1, 2], average="macro", zero_division=0)
    assert known == pytest.approx(measure("macro_f1", outcome, seed=0).value)
    assert pytest.approx(2 / 3) == known


def test_a_probability_of_zero_is_a_large_loss_not_an_infinite_one() -> None:
    """No metric is infinite: nothing stored may be."""
    outcome = Outcome(np.array([0]), np.array([1]), np.array([[0.0, 1.0]]), ("a", "b"))
    assert 600 < measure("nll", outcome, seed=0).value < 800


def test_a_probability_above_one_by_rounding_changes_nothing() -> None:
    """Losses are not negative, nor minus zero, and a square error is at most 2."""
    outcome = Outcome(np.array([0, 0]), np.array([0, 0]), np.array([[1 + 1e-15, 0.0], [1.0, 0.0]]), ("a", "b"))
    for name in ("nll", "brier", "ece", "ece_debiased"):
        found = measure(name, outcome, seed=0)
        assert 0.0 == found.value == found.interval.low
        assert 1.0 == math.copysign(1, found.value)
    wrong = Outcome(np.array([1, 1]), np.array([0, 0]), outcome.probabilities, ("a", "b"))
    assert 2.0 == measure("brier", wrong, seed=0).value


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_has_an_interval_around_its_value(name: str) -> None:
    """Value and interval agree, and equal seeds give equal intervals."""
    outcome = outcome_of(GOLD * 5, PREDICTED * 5)
    found = measure(name, outcome, seed=2)
    assert found.interval.low <= found.value <= found.interval.high
    assert found == measure(name, outcome, seed=2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ([0], [0]),
        ([1], [2]),
        ([0], [UNSCORED]),
        ([2, 2, 2], [2, 2, 2]),
        ([0, 0, 0], [1, 1, 1]),
        ([0, 1, 2, 1], [UNSCORED] * 4),
        ([0, 1], [0, UNSCORED]),
    ],
)
def test_few_equal_and_unscored_rows_give_numbers(name: str, gold: list[int], predicted: list[int]) -> None:
    """One row, one class and rows without any score have finite values in finite intervals, and no warnings."""
    found = measure(name, outcome_of(gold, predicted), seed=0)
    assert all(math.isfinite(number) for number in (found.value, found.interval.low, found.interval.high))
    assert found.interval.low <= found.value <= found.interval.high


def test_the_mean_loss_of_one_row_is_known_within_its_bounds_only() -> None:
    """One loss has no spread, so the interval is all that a mean loss can be."""
    outcome = outcome_of([0], [0])
    assert Interval(0.0, 2.0, "t") == measure("brier", outcome, seed=0).interval
    assert 0.0 == measure("nll", outcome, seed=0).interval.low
    assert 600 < measure("nll", outcome, seed=0).interval.high < 800


def test_every_interval_names_its_method() -> None:
    """A proportion has Wilson's, a mean has Student's, what is neither is resampled."""
    outcome = outcome_of(GOLD, PREDICTED)
    kinds = {name: measure(name, outcome, seed=0).interval.kind for name in NAMES}
    approximate = dict.fromkeys(["ece", "ece_debiased"], "bootstrap, approximate")
    resampled = dict.fromkeys(["macro_f1", "f1(spam)", "matthews"], "bootstrap")
    assert kinds == {"accuracy": "wilson", "nll": "t", "brier": "t", **resampled, **approximate}


def test_which_way_is_good() -> None:
    """A loss is better when lower."""
    outcome = outcome_of(GOLD, PREDICTED)
    found = {name for name in NAMES if measure(name, outcome, seed=0).higher_is_better}
    assert found == {"accuracy", "macro_f1", "f1(spam)", "matthews"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "metric 'acuracy' is unknown. Did you mean 'accuracy'? Known: accuracy, brier, "),
        ("f1(spam", "metric 'f1(spam' is unknown. Known: accuracy, brier, "),
        ("f1", "metric 'f1' needs a label in parentheses, such as f1(ham). Labels: ham, spam, other."),
        ("f1(spm)", "metric 'f1(spm)': there is no label 'spm'. Did you mean 'spam'? Labels: ham, spam, other."),
        ("f1()", "metric 'f1()': there is no label ''. Labels: ham, spam, other."),
        ("accuracy(spam)", "metric 'accuracy(spam)' takes nothing in parentheses: write accuracy."),
    ],
)
@pytest.mark.parametrize("ask", [check_metric, lambda name, _: measure(name, outcome_of(GOLD, PREDICTED), seed=0)])
def test_a_wrong_name_is_explained(ask: Callable[[str, tuple[str, ...]], object], name: str, message: str) -> None:
    """One sentence says what is wrong and what is allowed, before anything is computed and when it is."""
    with pytest.raises(UsageError) as fault:
        ask(name, LABELS)
    assert str(fault.value).startswith(message)


def test_a_right_name_is_accepted() -> None:
    """Every metric passes, and so does a label with blanks or parentheses of its own."""
    for name in NAMES:
        check_metric(name, LABELS)
    check_metric("f1(not spam (yet))", ("spam", "not spam (yet)"))


def test_a_metric_of_another_package_may_take_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third parameter `label` gets what stands in parentheses; without one, two parameters are enough."""
    monkeypatch.setattr(METRICS, "_targets", dict(METRICS._targets))

    @METRICS.register("recall")
    def recall(outcome: Outcome, seed: int, label: str) -> Measured:
        is_gold = outcome.gold == outcome.labels.index(label)
        value = float(outcome.is_right[is_gold].mean())
        return Measured(value, Interval(0.0, 1.0, "none"), True)

    METRICS.register("seed", lambda outcome, seed: Measured(seed, Interval(seed, seed, "none"), True))
    outcome = outcome_of(GOLD, PREDICTED)
    assert 0.5 == measure("recall(spam)", outcome, seed=0).value
    assert 7 == measure("seed", outcome, seed=7).value
    with pytest.raises(UsageError, match=r"metric 'recall' needs a label in parentheses, such as recall\(ham\)"):
        check_metric("recall", LABELS)


def test_cells_are_compared_by_what_the_metric_is() -> None:
    """Accuracy by McNemar, means of losses by flips, what needs the table by swaps; first minus second."""
    first, second = outcome_of(GOLD * 4, PREDICTED * 4), outcome_of(GOLD * 4, [0] * 32)
    found = {name: compare(name, first, second, seed=0) for name in NAMES if "ece" not in name}
    for name, comparison in found.items():
        values = [measure(name, outcome, seed=0).value for outcome in (first, second)]
        assert values[0] - values[1] == pytest.approx(comparison.difference)
    swaps = dict.fromkeys(["macro_f1", "f1(spam)", "matthews"], "swapped predictions")
    expected = {"accuracy": "mcnemar mid-p", "nll": "sign flips", "brier": "sign flips", **swaps}
    assert expected == {name: comparison.test for name, comparison in found.items()}
    assert paired_accuracy(first.is_right, second.is_right) == found["accuracy"]
    assert paired_difference(first.losses, second.losses, seed=0) == found["nll"]


def test_what_cannot_be_compared_is_refused() -> None:
    """A calibration error is neither a mean over rows nor a function of a table, and other rows are no pairs."""
    outcome = outcome_of(GOLD, PREDICTED)
    with pytest.raises(
        UsageError, match=r"metric 'ece' cannot be compared row by row\. Metrics that can: accuracy, bri"
    ):
        compare("ece", outcome, outcome, seed=0)
    with pytest.raises(UsageError, match="there is no label 'spm'"):
        compare("f1(spm)", outcome, outcome, seed=0)
    with pytest.raises(ValueError, match="needs the same rows"):
        compare("accuracy", outcome, outcome_of(GOLD[::-1], PREDICTED), seed=0)
