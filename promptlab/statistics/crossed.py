"""The mean of scores that are crossed, rows by draws of the shots: how sure it is for other rows and other draws.

Every draw answers the same rows, so neither rows nor draws alone say how far the mean may be off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtr, stdtrit

from promptlab.statistics.intervals import CONFIDENCE, Interval

if TYPE_CHECKING:
    from jaxtyping import Float64


@dataclass(frozen=True, slots=True)
class CrossedMean:
    """A mean over rows and draws, its interval, its standard error, and the p-value of a mean of 0 (two-sided t).

    `row`, `draw` and `rest` are the estimated variances of a row, of a draw and of what is left, none below 0; `draw`
    and `rest` are None where there is one draw, and then the interval is for other rows alone. `freedom` are the
    degrees of freedom of the t distribution.
    """

    value: float
    interval: Interval
    standard_error: float
    p_value: float
    row: float
    draw: float | None
    rest: float | None
    freedom: float


@dataclass(frozen=True, slots=True)
class PooledMean:
    """A mean over means that are independent, such as those of tasks, with its interval and two-sided p-value."""

    value: float
    interval: Interval
    standard_error: float
    p_value: float
    num_means: int


def pooled_mean(means: Sequence[CrossedMean], *, lowest: float = -math.inf, highest: float = math.inf) -> PooledMean:
    """The plain mean of some means, each with the same weight; rows and draws vary within them, they themselves do not.

    The variance is the sum of theirs over the square of their number, with Satterthwaite's degrees of freedom.

    Args:
        means: one a task, of other rows and other draws each.
        lowest: the lowest value that a mean can have.
        highest: the highest.
    """
    number, value = len(means), sum(one.value for one in means) / len(means)
    variances = [one.standard_error**2 for one in means]
    total = sum(variances)
    if math.isinf(total):
        return PooledMean(value, Interval(lowest, highest, "t, crossed"), math.inf, 1.0, number)
    parts = sum(variance**2 / one.freedom for variance, one in zip(variances, means, strict=True))
    freedom = total**2 / parts if parts else sum(one.freedom for one in means)
    interval, error, p_value = _t_interval(value, total / number**2, freedom, lowest, highest)
    return PooledMean(value, interval, error, p_value, number)


def crossed_mean(
    scores: Float64[np.ndarray, "row draw"], *, lowest: float = -math.inf, highest: float = math.inf
) -> CrossedMean:
    """The grand mean under a two-way model with both factors random, one score a row and draw.

    With mean squares MS the variance of the mean is (MS_row + MS_draw - MS_rest) / (rows x draws), with Satterthwaite's
    degrees of freedom (Satterthwaite 1946; Searle, Casella and McCulloch 1992, chapter 4). Where that falls below what
    rows or draws alone give, which it can by chance only, the larger of these is taken.

    Args:
        scores: a score a row and draw, such as a difference of two methods.
        lowest: the lowest value that a mean can have.
        highest: the highest.
    """
    num_rows, num_draws = scores.shape
    value = float(scores.mean())
    if num_rows == 1:
        return CrossedMean(value, Interval(lowest, highest, "t, crossed"), math.inf, 1.0, 0.0, None, None, 0.0)
    of_row = num_draws * float(scores.mean(axis=1).var(ddof=1))
    if num_draws == 1:
        return _finish(value, of_row / num_rows, num_rows - 1, (of_row, None, None), lowest, highest)
    of_draw = num_rows * float(scores.mean(axis=0).var(ddof=1))
    residuals = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + value
    free = (num_rows - 1) * (num_draws - 1)
    of_rest = float((residuals**2).sum()) / free
    total = of_row + of_draw - of_rest
    if total >= max(of_row, of_draw):
        parts = of_row**2 / (num_rows - 1) + of_draw**2 / (num_draws - 1) + of_rest**2 / free
        freedom = total**2 / parts if parts else float(num_rows - 1)
    else:
        total, freedom = max((of_row, num_rows - 1.0), (of_draw, num_draws - 1.0))
    variances = (
        max(0.0, (of_row - of_rest) / num_draws),
        max(0.0, (of_draw - of_rest) / num_rows),
        of_rest,
    )
    return _finish(value, total / (num_rows * num_draws), freedom, variances, lowest, highest)


def _finish(
    value: float,
    variance: float,
    freedom: float,
    variances: tuple[float, float | None, float | None],
    lowest: float,
    highest: float,
) -> CrossedMean:
    interval, error, p_value = _t_interval(value, variance, freedom, lowest, highest)
    return CrossedMean(value, interval, error, p_value, *variances, freedom=freedom)


def _t_interval(
    value: float, variance: float, freedom: float, lowest: float, highest: float
) -> tuple[Interval, float, float]:
    """Interval, standard error and p-value of a mean with such a variance."""
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    interval = Interval(max(lowest, value - half), min(highest, value + half), "t, crossed")
    certain = 1.0 if value == 0 else 0.0
    return interval, error, float(2 * stdtr(freedom, -abs(value) / error)) if error else certain
