"""Gold labels + label probabilities -> a number with its interval.

A row that could not be scored is never dropped: it is predicted as an extra class `none` for accuracy, F1 and Matthews,
has uniform probabilities for the negative log-likelihood and the Brier score, and is wrong with confidence 1/K for the
calibration errors.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.errors import UsageError, did_you_mean
from promptlab.registry import METRICS
from promptlab.statistics import reliability, tables
from promptlab.statistics.intervals import Estimate, Interval, mean_interval, wilson
from promptlab.statistics.paired import Comparison, paired_accuracy, paired_difference, paired_table

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

UNSCORED = tables.NONE
_TINY = 1e-300
_LARGEST_LOSS = -math.log(_TINY)
_ARGUMENT = re.compile(r"([^()]+)\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one cell predicted on rows with gold labels.

    `gold` holds label indices; `predicted` too, with -1 for rows that could not be scored; `probabilities` are
    p(y | x) (uniform for those rows); `labels` are the labels that the indices stand for.
    """

    gold: Int64[np.ndarray, " row"]
    predicted: Int64[np.ndarray, " row"]
    probabilities: Float64[np.ndarray, "row label"]
    labels: tuple[str, ...]

    @property
    def is_right(self) -> Bool[np.ndarray, " row"]:
        """Whether each row was predicted right."""
        is_right: Bool[np.ndarray, " row"] = self.gold == self.predicted
        return is_right

    @property
    def confidence(self) -> Float64[np.ndarray, " row"]:
        """The largest probability of each row."""
        confidence: Float64[np.ndarray, " row"] = np.minimum(self.probabilities.max(axis=1), 1.0)
        return confidence

    @property
    def losses(self) -> Float64[np.ndarray, " row"]:
        """-log p(gold | x) of each row in nats, at most 691: nothing stored is infinite."""
        chosen = self.probabilities[np.arange(len(self.gold)), self.gold]
        losses: Float64[np.ndarray, " row"] = np.abs(np.log(np.clip(chosen, _TINY, 1.0)))
        return losses

    @property
    def square_errors(self) -> Float64[np.ndarray, " row"]:
        """Sum over labels of (p(y | x) - [y is gold])^2 of each row, from 0 to 2."""
        chosen = self.probabilities[np.arange(len(self.gold)), self.gold]
        errors = np.einsum("ij,ij->i", self.probabilities, self.probabilities) - 2 * chosen + 1
        square_errors: Float64[np.ndarray, " row"] = np.clip(errors, 0.0, 2.0)
        return square_errors


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's value with its interval; `higher_is_better` says which way is good."""

    value: float
    interval: Interval
    higher_is_better: bool

    @classmethod
    def of(cls, estimate: Estimate, *, higher_is_better: bool) -> Measured:
        """An estimate that knows which way is good."""
        return cls(estimate.value, estimate.interval, higher_is_better)


Metric = Callable[..., Measured]


def measure(name: str, outcome: Outcome, *, seed: int) -> Measured:
    """The named metric on an outcome of at least one row; `seed` draws the bootstrap.

    Raises:
        UsageError: no metric has this name, or the argument in its parentheses is none of the labels.
    """
    metric, arguments = _resolve(name, outcome.labels)
    measured: Measured = metric(outcome, seed, **arguments)
    return measured


def check_metric(name: str, labels: Sequence[str]) -> None:
    """Refuse a name that no metric has, or that names what is no label; computes nothing.

    Raises:
        UsageError: one sentence with what is allowed.
    """
    _resolve(name, labels)


def compare(name: str, first: Outcome, second: Outcome, *, seed: int) -> Comparison:
    """The named metric of the first minus that of the second, paired over the same rows.

    Raises:
        UsageError: no metric has this name, or it is no mean over rows and no function of gold against predicted.
    """
    metric, arguments = _resolve(name, first.labels)
    if not np.array_equal(first.gold, second.gold):
        raise ValueError("a paired comparison needs the same rows in the same order")
    if metric is accuracy:
        return paired_accuracy(first.is_right, second.is_right)
    if metric is nll:
        return paired_difference(first.losses, second.losses, seed=seed, limit=_LARGEST_LOSS)
    if metric is brier:
        return paired_difference(first.square_errors, second.square_errors, seed=seed, limit=2.0)
    statistic = _statistic(metric, first.labels, **arguments)
    if statistic is None:
        known = "accuracy, brier, f1(LABEL), macro_f1, matthews, nll"
        raise UsageError(f"metric '{name}' cannot be compared row by row. Metrics that can: {known}.")
    return paired_table(statistic, first.gold, first.predicted, second.predicted, len(first.labels), seed=seed)


def _resolve(name: str, labels: Sequence[str]) -> tuple[Metric, dict[str, str]]:
    """The metric of a name such as `accuracy` or `f1(spam)`, and its argument."""
    match = _ARGUMENT.fullmatch(name)
    base, label = (match[1], match[2]) if match else (name, None)
    metric: Metric = METRICS.get(base)
    allowed = f"Labels: {', '.join(labels)}."
    if not _takes_label(metric):
        if label is not None:
            raise UsageError(f"metric '{name}' takes nothing in parentheses: write {base}.")
        return metric, {}
    if label is None:
        raise UsageError(f"metric '{name}' needs a label in parentheses, such as {base}({labels[0]}). {allowed}")
    if label not in labels:
        raise UsageError(f"metric '{name}': there is no label '{label}'.{did_you_mean(label, labels)} {allowed}")
    return metric, {"label": label}


def _takes_label(metric: Metric) -> bool:
    """Whether a metric is asked for with a label in parentheses, which it gets as its parameter `label`."""
    return "label" in inspect.signature(metric).parameters


@METRICS.register("accuracy")
def accuracy(outcome: Outcome, seed: int) -> Measured:
    """Share of rows predicted right; Wilson interval."""
    hits, rows = int(outcome.is_right.sum()), len(outcome.gold)
    return Measured(hits / rows, wilson(hits, rows), higher_is_better=True)


@METRICS.register("macro_f1")
def macro_f1(outcome: Outcome, seed: int) -> Measured:
    """Mean over labels of F1 = 2 TP / (2 TP + FP + FN), 0 for a label that is neither gold nor predicted; bootstrap."""
    return _of_table(tables.macro_f1, outcome, seed)


@METRICS.register("f1")
def f1(outcome: Outcome, seed: int, label: str) -> Measured:
    """F1 of the label in parentheses behind the name, 0 where it is neither gold nor predicted; bootstrap."""
    return _of_table(functools.partial(tables.f1, label=outcome.labels.index(label)), outcome, seed)


@METRICS.register("matthews")
def matthews(outcome: Outcome, seed: int) -> Measured:
    """Correlation of gold and predicted label, R_K of Gorodkin (2004), 0 where undefined; bootstrap."""
    return _of_table(tables.matthews, outcome, seed)


@METRICS.register("nll")
def nll(outcome: Outcome, seed: int) -> Measured:
    """Mean of -log p(gold | x) in nats; t interval."""
    return _of_losses(outcome.losses, _LARGEST_LOSS)


@METRICS.register("brier")
def brier(outcome: Outcome, seed: int) -> Measured:
    """Mean over rows of the sum over labels of (p(y | x) - [y is gold])^2, from 0 to 2 (Brier 1950); t interval."""
    return _of_losses(outcome.square_errors, 2.0)


@METRICS.register("ece")
def ece(outcome: Outcome, seed: int) -> Measured:
    """Expected calibration error, 15 bins of equal width (Guo et al. 2017); bootstrap."""
    estimate = reliability.calibration_error(outcome.confidence, outcome.is_right, seed=seed)
    return Measured.of(estimate, higher_is_better=False)


@METRICS.register("ece_debiased")
def ece_debiased(outcome: Outcome, seed: int) -> Measured:
    """Debiased root mean square calibration error, 15 bins of equal mass (Kumar et al. 2019); bootstrap."""
    estimate = reliability.debiased_calibration_error(outcome.confidence, outcome.is_right, seed=seed)
    return Measured.of(estimate, higher_is_better=False)


def _statistic(metric: Metric, labels: Sequence[str], label: str | None = None) -> tables.Statistic | None:
    """What a metric is as a function of gold against predicted; None where it is more than that."""
    if metric is f1 and label is not None:
        return functools.partial(tables.f1, label=labels.index(label))
    if metric is macro_f1:
        return tables.macro_f1
    return tables.matthews if metric is matthews else None


def _of_table(statistic: tables.Statistic, outcome: Outcome, seed: int) -> Measured:
    table, counts = tables.tabulate(outcome.gold, outcome.predicted, len(outcome.labels))
    return Measured.of(tables.estimate(statistic, table, counts, seed=seed), higher_is_better=True)


def _of_losses(losses: Float64[np.ndarray, " row"], largest: float) -> Measured:
    interval = mean_interval(losses, lowest=0.0, highest=largest)
    return Measured(float(losses.mean()), interval, higher_is_better=False)
