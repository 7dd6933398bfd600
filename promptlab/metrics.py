"""Gold labels + label probabilities -> a number with its interval.

A row that could not be scored is never dropped: it is predicted as an extra class `none` for accuracy and F1, and has
uniform probabilities for the negative log-likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.registry import METRICS
from promptlab.statistics import Interval, bootstrap, wilson

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

UNSCORED = -1
_TINY = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one cell predicted on rows with gold labels.

    `gold` holds label indices; `predicted` too, with -1 for rows that could not be scored; `probabilities` are
    p(y | x) (uniform for those rows).
    """

    gold: Int64[np.ndarray, " row"]
    predicted: Int64[np.ndarray, " row"]
    probabilities: Float64[np.ndarray, "row label"]

    @property
    def is_right(self) -> Bool[np.ndarray, " row"]:
        """Whether each row was predicted right."""
        is_right: Bool[np.ndarray, " row"] = self.gold == self.predicted
        return is_right


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's value with its interval; `higher_is_better` says which way is good."""

    value: float
    interval: Interval
    higher_is_better: bool


Metric = Callable[[Outcome, int], Measured]


def measure(name: str, outcome: Outcome, *, seed: int) -> Measured:
    """The named metric on an outcome; `seed` draws the bootstrap."""
    metric: Metric = METRICS.get(name)
    return metric(outcome, seed)


@METRICS.register("accuracy")
def accuracy(outcome: Outcome, seed: int) -> Measured:
    """Share of rows predicted right; Wilson interval."""
    hits, rows = int(outcome.is_right.sum()), len(outcome.gold)
    return Measured(hits / rows, wilson(hits, rows), higher_is_better=True)


@METRICS.register("macro_f1")
def macro_f1(outcome: Outcome, seed: int) -> Measured:
    """Mean over labels of F1 = 2 TP / (2 TP + FP + FN), 0 for a label that is neither gold nor predicted; bootstrap."""
    num_labels = outcome.probabilities.shape[1]
    labels = np.arange(num_labels)
    is_gold = (outcome.gold[:, None] == labels).astype(np.float64)
    is_predicted = (outcome.predicted[:, None] == labels).astype(np.float64)

    def statistic(counts: Float64[np.ndarray, "resample row"]) -> Float64[np.ndarray, " resample"]:
        both = counts @ (is_gold * is_predicted)
        total = counts @ (is_gold + is_predicted)
        scores: Float64[np.ndarray, " resample"] = np.divide(
            2 * both, total, out=np.zeros_like(both), where=total > 0
        ).mean(axis=1)
        return scores

    value = float(statistic(np.ones((1, len(outcome.gold))))[0])
    return Measured(value, bootstrap(statistic, len(outcome.gold), seed=seed), higher_is_better=True)


@METRICS.register("nll")
def nll(outcome: Outcome, seed: int) -> Measured:
    """Mean of -log p(gold | x) in nats; bootstrap."""
    chosen = outcome.probabilities[np.arange(len(outcome.gold)), outcome.gold]
    losses = -np.log(np.maximum(chosen, _TINY))

    def statistic(counts: Float64[np.ndarray, "resample row"]) -> Float64[np.ndarray, " resample"]:
        means: Float64[np.ndarray, " resample"] = counts @ losses / len(losses)
        return means

    return Measured(float(losses.mean()), bootstrap(statistic, len(losses), seed=seed), higher_is_better=False)
