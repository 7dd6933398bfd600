"""Statistics of gold against predicted labels: what depends on the rows only through how many are alike.

A statistic takes the cells of a table and any number of columns of counts, one a resample, and gives a number a column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.statistics.intervals import Estimate
from promptlab.statistics.resampling import draw_counts, percentile_interval

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

NONE = -1  # the predicted "label" of a row that could not be scored
_FEW_CLASSES = 16  # up to so many, sums over cells are faster as a product of matrices


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The cells of a table of gold against predicted label; `predicted` may hold -1, an extra class `none`."""

    gold: Int64[np.ndarray, " cell"]
    predicted: Int64[np.ndarray, " cell"]
    num_labels: int


Statistic = Callable[[Table, "Float64[np.ndarray, 'cell resample']"], "Float64[np.ndarray, ' resample']"]


def tabulate(
    gold: Int64[np.ndarray, " row"], predicted: Int64[np.ndarray, " row"], num_labels: int
) -> tuple[Table, Int64[np.ndarray, " cell"]]:
    """The table of the rows with its non-empty cells alone, and how many rows each cell has."""
    counts = np.bincount(gold * (num_labels + 1) + (predicted - NONE))
    cells = np.flatnonzero(counts)
    return Table(cells // (num_labels + 1), cells % (num_labels + 1) + NONE, num_labels), counts[cells]


def estimate(statistic: Statistic, table: Table, counts: Int64[np.ndarray, " cell"], *, seed: int) -> Estimate:
    """A statistic of a table, with its percentile bootstrap over rows."""
    value = float(statistic(table, counts[:, None].astype(np.float64))[0])
    values = np.concatenate([statistic(table, drawn) for drawn in draw_counts(counts, seed)])
    return Estimate(value, percentile_interval(values))


def macro_f1(table: Table, counts: Float64[np.ndarray, "cell resample"]) -> Float64[np.ndarray, " resample"]:
    """Mean over labels of F1 = 2 TP / (2 TP + FP + FN), 0 for a label that is neither gold nor predicted.

    A label that has gold rows, but in a resample neither these nor predictions, is left out of that resample's mean:
    what was not drawn would else count as wrong.
    """
    is_right, is_scored = table.gold == table.predicted, table.predicted != NONE
    both = _sums(table.gold, counts, table.num_labels, where=is_right)
    total = _sums(table.gold, counts, table.num_labels)
    total += _sums(table.predicted, counts, table.num_labels, where=is_scored)
    scores = np.divide(2 * both, total, out=np.zeros_like(both), where=total > 0)
    labels = np.unique(table.gold)
    num_drawn = np.count_nonzero(total[labels], axis=0)
    means: Float64[np.ndarray, " resample"] = scores.sum(axis=0) * len(labels) / num_drawn / table.num_labels
    return means


def f1(table: Table, counts: Float64[np.ndarray, "cell resample"], *, label: int) -> Float64[np.ndarray, " resample"]:
    """F1 = 2 TP / (2 TP + FP + FN) of one label, 0 where it is neither gold nor predicted."""
    is_gold, is_predicted = table.gold == label, table.predicted == label
    both = counts[is_gold & is_predicted].sum(axis=0)
    total = counts[is_gold].sum(axis=0) + counts[is_predicted].sum(axis=0)
    scores: Float64[np.ndarray, " resample"] = np.divide(2 * both, total, out=np.zeros_like(both), where=total > 0)
    return scores


def matthews(table: Table, counts: Float64[np.ndarray, "cell resample"]) -> Float64[np.ndarray, " resample"]:
    """The correlation R_K of gold and predicted label over the labels and `none` (Gorodkin 2004).

    With two classes it is the Matthews correlation coefficient. It is 0 where all rows have one gold label, or all
    one prediction.
    """
    num_classes = table.num_labels + 1
    gold = _sums(table.gold, counts, num_classes)
    predicted = _sums(table.predicted % num_classes, counts, num_classes)
    total, hits = counts.sum(axis=0), counts[table.gold == table.predicted].sum(axis=0)
    covariance = hits * total - (gold * predicted).sum(axis=0)
    spread = np.sqrt((total**2 - (gold**2).sum(axis=0)) * (total**2 - (predicted**2).sum(axis=0)))
    correlations: Float64[np.ndarray, " resample"] = np.zeros_like(spread)
    np.divide(covariance, spread, out=correlations, where=spread > 0)
    return correlations.clip(-1, 1)


def _sums(
    classes: Int64[np.ndarray, " cell"],
    counts: Float64[np.ndarray, "cell resample"],
    num_classes: int,
    *,
    where: Bool[np.ndarray, " cell"] | None = None,
) -> Float64[np.ndarray, "class resample"]:
    """How many rows each class has, summed over the cells that are asked for."""
    if num_classes <= _FEW_CLASSES:
        is_inside = classes == np.arange(num_classes)[:, None]
        is_inside = is_inside if where is None else is_inside & where
        products: Float64[np.ndarray, "class resample"] = is_inside.astype(np.float64) @ counts
        return products
    order = np.argsort(classes, kind="stable")
    order = order if where is None else order[where[order]]
    sums = np.zeros((num_classes, counts.shape[1]))
    if len(order):
        classes = classes[order]
        starts = np.flatnonzero(np.diff(classes, prepend=classes[0] - 1))
        sums[classes[starts]] = np.add.reduceat(counts[order], starts, axis=0)
    return sums
