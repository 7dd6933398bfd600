"""Statistics of gold against predicted labels against scikit-learn, on many columns of counts at once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from promptlab.statistics.tables import NONE, Table, estimate, f1, macro_f1, matthews, tabulate


def rows(num_rows: int, num_labels: int, seed: int, *, with_none: bool = True) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    gold = generator.integers(num_labels, size=num_rows)
    guess = generator.integers(NONE if with_none else 0, num_labels, size=num_rows)
    return gold, np.where(generator.random(num_rows) < 0.5, gold, guess)


def value(statistic: Any, gold: np.ndarray, predicted: np.ndarray, num_labels: int) -> float:
    table, counts = tabulate(gold, predicted, num_labels)
    return float(statistic(table, counts[:, None].astype(float))[0])


def sklearns(gold: np.ndarray, predicted: np.ndarray, num_labels: int) -> list[float]:
    labels = list(range(num_labels))
    found = f1_score(gold, predicted, labels=labels, average=None, zero_division=0)
    return [float(np.mean(found)), float(found[1]), float(matthews_corrcoef(gold, predicted))]


@pytest.mark.parametrize("num_labels", [2, 3, 6, 77])
@pytest.mark.parametrize("num_rows", [3, 40, 400])
@pytest.mark.parametrize("with_none", [False, True])
def test_statistics_are_scikit_learns(num_labels: int, num_rows: int, with_none: bool) -> None:
    """Macro F1, F1 of a label and R_K equal scikit-learn's; a row without prediction is a class of its own."""
    gold, predicted = rows(num_rows, num_labels, num_rows, with_none=with_none)
    statistics = (macro_f1, functools.partial(f1, label=1), matthews)
    found = [value(statistic, gold, predicted, num_labels) for statistic in statistics]
    assert sklearns(gold, predicted, num_labels) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("num_labels", [3, 20])
def test_a_column_of_counts_is_a_set_of_rows(num_labels: int) -> None:
    """Every column of drawn counts gives what scikit-learn gives for the rows so often; cells may stand twice."""
    gold, predicted = rows(200, num_labels, 0)
    one_a_row = Table(gold, predicted, num_labels)
    counts = np.random.default_rng(1).integers(5, size=(200, 25)).astype(float)
    statistics = (macro_f1, functools.partial(f1, label=1), matthews)
    found = np.stack([statistic(one_a_row, counts) for statistic in statistics])
    for column in range(25):
        drawn = np.repeat(np.arange(200), counts[:, column].astype(int))
        assert sklearns(gold[drawn], predicted[drawn], num_labels) == pytest.approx(
            found[:, column].tolist(), abs=1e-12
        )


def test_a_table_has_its_non_empty_cells_and_all_rows() -> None:
    """Cells are sorted by gold and predicted label, `none` first, and hold every row once."""
    table, counts = tabulate(np.array([1, 0, 1, 1, 0]), np.array([1, NONE, 0, 1, 1]), 2)
    assert [(0, NONE, 1), (0, 1, 1), (1, 0, 1), (1, 1, 2)] == list(
        zip(table.gold.tolist(), table.predicted.tolist(), counts.tolist(), strict=True)
    )


def test_matthews_is_zero_where_it_is_undefined() -> None:
    """One gold label, or one prediction, has no correlation with anything."""
    assert 0.0 == value(matthews, np.zeros(5, dtype=int), np.array([0, 0, 1, 1, 0]), 2)
    assert 0.0 == value(matthews, np.array([0, 1, 1]), np.full(3, NONE), 2)
    assert 1.0 == value(matthews, np.array([0, 1, 2]), np.array([0, 1, 2]), 3)
    assert -1.0 == value(matthews, np.array([0, 1, 1]), np.array([1, 0, 0]), 2)


def test_a_label_that_a_resample_has_not_drawn_is_left_out() -> None:
    """With one row a label, all right, every resample is all right; else the interval would lie below the value."""
    gold = np.arange(40)
    table, counts = tabulate(gold, gold, 40)
    found = estimate(macro_f1, table, counts, seed=0)
    assert (1.0, 1.0, 1.0) == pytest.approx((found.value, found.interval.low, found.interval.high))


def test_a_label_that_no_row_has_stays_in_the_mean() -> None:
    """A label that is gold nowhere counts as 0 in the value, and as 0 in every resample."""
    gold = np.array([0, 0, 1, 1] * 10)
    table, counts = tabulate(gold, gold, 4)
    found = estimate(macro_f1, table, counts, seed=0)
    assert (0.5, 0.5, 0.5) == pytest.approx((found.value, found.interval.low, found.interval.high))


@pytest.mark.parametrize("statistic", [macro_f1, functools.partial(f1, label=1), matthews])
def test_the_interval_is_that_of_a_naive_bootstrap(statistic: Any) -> None:
    """Drawing tables gives the quantiles of drawing rows one by one and computing anew, within noise."""
    gold, predicted = rows(150, 3, 4)
    table, counts = tabulate(gold, predicted, 3)
    interval = estimate(statistic, table, counts, seed=0).interval
    generator = np.random.default_rng(0)
    draws = (generator.integers(150, size=150) for _ in range(4000))
    naive = np.quantile([value(statistic, gold[drawn], predicted[drawn], 3) for drawn in draws], [0.025, 0.975])
    assert naive == pytest.approx((interval.low, interval.high), abs=0.02)
    assert "bootstrap" == interval.kind
