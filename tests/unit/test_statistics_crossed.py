"""Means over rows and draws: against a naive analysis of variance, closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from promptlab.statistics.crossed import crossed_mean, pooled_mean


def naive(scores: np.ndarray) -> tuple[float, float]:
    """Variance of the mean and degrees of freedom, by sums of squares in loops."""
    rows, draws = scores.shape
    grand = sum(scores[i, j] for i in range(rows) for j in range(draws)) / rows / draws
    row_means = [sum(scores[i]) / draws for i in range(rows)]
    draw_means = [sum(scores[:, j]) / rows for j in range(draws)]
    ms_row = draws * sum((m - grand) ** 2 for m in row_means) / (rows - 1)
    ms_draw = rows * sum((m - grand) ** 2 for m in draw_means) / (draws - 1)
    free = (rows - 1) * (draws - 1)
    ms_rest = 0.0
    for i in range(rows):
        for j in range(draws):
            ms_rest += (scores[i, j] - row_means[i] - draw_means[j] + grand) ** 2 / free
    total = ms_row + ms_draw - ms_rest
    freedom = total**2 / (ms_row**2 / (rows - 1) + ms_draw**2 / (draws - 1) + ms_rest**2 / free)
    return total / rows / draws, freedom


def test_interval_is_the_naive_one() -> None:
    """Mean squares, Satterthwaite's degrees of freedom and the t quantile."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(30, 1)) + generator.normal(size=(1, 5)) + generator.normal(size=(30, 5))
    variance, freedom = naive(scores)
    found = crossed_mean(scores)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert found.value == pytest.approx(scores.mean())
    assert (found.interval.low, found.interval.high) == pytest.approx((scores.mean() - half, scores.mean() + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(scores.mean()) / math.sqrt(variance), freedom))


def test_one_draw_is_the_t_interval_over_rows() -> None:
    """Nothing is known of other draws then."""
    scores = np.random.default_rng(1).normal(size=(20, 1))
    found = crossed_mean(scores)
    expected = stats.t.interval(0.95, 19, scores.mean(), stats.sem(scores[:, 0]))
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)
    assert found.draw is None


def test_draws_that_say_the_same_count_once() -> None:
    """Five copies of one draw are no surer than one."""
    scores = np.random.default_rng(2).normal(size=(20, 1))
    one, five = crossed_mean(scores), crossed_mean(np.repeat(scores, 5, axis=1))
    assert one.interval.low == pytest.approx(five.interval.low)


def test_rows_that_say_the_same_count_once() -> None:
    """Where only the draws differ, there are as many scores as draws."""
    scores = np.repeat(np.random.default_rng(3).normal(size=(1, 5)), 40, axis=0)
    expected = stats.t.interval(0.95, 4, scores.mean(), stats.sem(scores[0]))
    found = crossed_mean(scores)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)


def test_bounds_and_constants() -> None:
    """An interval ends where a mean can be, and equal scores leave no doubt."""
    found = crossed_mean(np.ones((4, 3)), lowest=0, highest=1)
    assert (1.0, 1.0, 1.0, 0.0) == (found.value, found.interval.low, found.interval.high, found.p_value)
    assert 1.0 == crossed_mean(np.zeros((4, 3))).p_value
    alone = crossed_mean(np.array([[0.5, 1.0]]), lowest=0, highest=1)
    assert (0.0, 1.0) == (alone.interval.low, alone.interval.high)


@pytest.mark.parametrize(("row", "draw"), [(0.3, 0.02), (0.3, 0.2), (0.0, 0.1), (0.3, 0.0)])
def test_intervals_cover_as_often_as_they_say(row: float, draw: float) -> None:
    """200 rows by 5 draws of right-or-wrong differences: at least 93 % over 1,000 simulated tables."""
    generator = np.random.default_rng(int(100 * row + 1000 * draw))
    hits, runs = 0, 1000
    for _ in range(runs):
        scores = (
            generator.normal(scale=row, size=(200, 1))
            + generator.normal(scale=draw, size=(1, 5))
            + generator.normal(scale=0.4, size=(200, 5))
        )
        found = crossed_mean(scores).interval
        hits += found.low <= 0 <= found.high
    assert hits / runs >= 0.93


def test_pooled_over_tasks_is_the_mean_of_means() -> None:
    """The plain mean, the sum of the variances over the square of the number, and Satterthwaite's t."""
    generator = np.random.default_rng(3)
    tasks = [sum(generator.normal(size=size) for size in ((n, 1), (1, 4), (n, 4))) + 0.2 for n in (20, 50, 35)]
    means = [crossed_mean(scores) for scores in tasks]
    variances = [naive(scores)[0] for scores in tasks]
    freedom = sum(variances) ** 2 / sum(v**2 / naive(s)[1] for v, s in zip(variances, tasks, strict=True))
    value, error = np.mean([scores.mean() for scores in tasks]), math.sqrt(sum(variances)) / 3
    found = pooled_mean(means)
    assert value == pytest.approx(found.value)
    assert error == pytest.approx(found.standard_error)
    half = stats.t.ppf(0.975, freedom) * error
    assert (value - half, value + half) == pytest.approx((found.interval.low, found.interval.high))
    assert 2 * stats.t.sf(abs(value) / error, freedom) == pytest.approx(found.p_value)
    assert 3 == found.num_means


def test_pooled_interval_holds_the_mean_of_the_tasks_as_often_as_it_says() -> None:
    """Tasks are fixed: over other rows and draws, 95 in 100 intervals hold the mean of their true differences."""
    generator, truths, held = np.random.default_rng(4), np.array([0.0, 0.3, -0.1]), 0
    for _ in range(400):
        parts = [generator.normal(size=shape) for _ in truths for shape in ((40, 1), (1, 5), (40, 5))]
        tasks = [
            crossed_mean(truth + parts[3 * i] + 0.3 * parts[3 * i + 1] + parts[3 * i + 2])
            for i, truth in enumerate(truths)
        ]
        interval = pooled_mean(tasks).interval
        held += interval.low <= truths.mean() <= interval.high
    assert 0.93 <= held / 400 <= 0.985


def test_pooling_a_task_of_one_row_says_nothing() -> None:
    """One row has no spread: the whole range, and a p-value of one."""
    found = pooled_mean([crossed_mean(np.ones((1, 2)), lowest=-1, highest=1)] * 2, lowest=-1, highest=1)
    assert (-1, 1, 1.0) == (found.interval.low, found.interval.high, found.p_value)
