"""Paired comparisons against scipy, statsmodels and naive loops."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from promptlab.statistics import paired
from promptlab.statistics.paired import (
    holm,
    mcnemar,
    paired_accuracy,
    paired_difference,
    paired_table,
    permutation_test,
)
from promptlab.statistics.tables import NONE, f1, macro_f1, matthews, tabulate


def two_losses(num_rows: int, seed: int, gap: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    first = generator.exponential(size=num_rows)
    return first, first + generator.normal(gap, 0.8, size=num_rows)


def two_predictions(num_rows: int, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    gold = generator.integers(num_labels, size=num_rows)
    first, second = (
        np.where(generator.random(num_rows) < share, gold, generator.integers(NONE, num_labels, size=num_rows))
        for share in (0.6, 0.4)
    )
    return gold, first, np.where(generator.random(num_rows) < 0.5, first, second)


def test_the_difference_of_means_is_scipys_paired_t() -> None:
    """Difference and interval are those of scipy's paired t-test, first minus second."""
    first, second = two_losses(40, 0)
    known = stats.ttest_rel(first, second)
    interval = known.confidence_interval(0.95)
    found = paired_difference(first, second, seed=0)
    assert (first - second).mean() == pytest.approx(found.difference)
    assert (interval.low, interval.high) == pytest.approx((found.interval.low, found.interval.high), abs=1e-9)
    assert ("t", "sign flips") == (found.interval.kind, found.test)
    assert known.pvalue == pytest.approx(found.p_value, abs=0.02)


def test_one_row_gives_all_differences_that_there_can_be() -> None:
    """One pair has no spread: with a limit the interval is the limit, without one there is none."""
    found = paired_difference(np.array([0.5]), np.array([0.2]), seed=0, limit=2.0)
    assert (0.3, -2.0, 2.0, 1.0) == pytest.approx(
        (found.difference, found.interval.low, found.interval.high, found.p_value)
    )
    with pytest.raises(ValueError, match="1 values have no spread"):
        paired_difference(np.array([0.5]), np.array([0.2]), seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_permutation_test_is_that_of_all_flips(seed: int) -> None:
    """Random flips give the share of all 2^10 flips that are as extreme, and agree with scipy's own."""
    differences = np.round(np.random.default_rng(seed).normal(0.4, 1, size=10), 1)
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    exact = float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean())
    scipys = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert exact == pytest.approx(scipys.pvalue)
    assert exact == pytest.approx(permutation_test(differences, seed=seed), abs=0.015)


def test_a_p_value_is_never_zero_and_equal_cells_have_one() -> None:
    """The rows themselves count as one flip, and flips of nothing are all as extreme; equal seeds, equal values."""
    assert 1e-4 == permutation_test(np.ones(60), seed=0)
    assert 1.0 == permutation_test(np.zeros(5), seed=0)
    first, second = two_losses(30, 1)
    assert permutation_test(first - second, seed=1) == permutation_test(second - first, seed=1)


def test_ties_count_as_extreme_whatever_the_rounding() -> None:
    """Flips that reach the same mean in another order of sums are as extreme as the rows."""
    differences = np.array([0.1, 0.2, 0.3, -0.1, 0.7, -0.2])
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))
    exact = (np.abs(np.round(signs @ differences, 9)) >= 1.0).mean()
    assert exact == pytest.approx(permutation_test(differences, seed=0), abs=0.015)


@pytest.mark.parametrize(("num_first", "num_second"), [(1, 7), (0, 6), (12, 30), (250, 300), (60_000, 61_000)])
def test_mcnemar_is_statsmodels_less_half_of_what_was_seen(num_first: int, num_second: int) -> None:
    """The mid-p value is the exact one minus the chance of exactly this split (Fagerland et al. 2013)."""
    exact = statsmodels_mcnemar([[5, num_first], [num_second, 5]], exact=True).pvalue
    chance = stats.binom.pmf(num_first, num_first + num_second, 0.5)
    assert exact - chance == pytest.approx(mcnemar(num_first, num_second), rel=1e-6)
    assert mcnemar(num_first, num_second) == mcnemar(num_second, num_first)


def test_mcnemar_of_known_cases() -> None:
    """The published example, a tie, and no discordant row at all."""
    assert 0.0391 == pytest.approx(mcnemar(1, 7), abs=5e-5)
    assert 1 - stats.binom.pmf(4, 8, 0.5) / 2 == pytest.approx(mcnemar(4, 4))
    assert 1.0 == mcnemar(0, 0)


def test_accuracies_are_compared_by_discordant_rows() -> None:
    """Rows that both get right or both get wrong carry no weight in the test."""
    first = np.array([True] * 30 + [False] * 20)
    second = np.array([True] * 20 + [False] * 28 + [True] * 2)
    found = paired_accuracy(first, second)
    assert first.mean() - second.mean() == pytest.approx(found.difference)
    assert mcnemar(10, 2) == found.p_value
    assert found.interval.low < found.difference < found.interval.high
    assert ("bonett-price", "mcnemar mid-p") == (found.interval.kind, found.test)


STATISTICS = [macro_f1, functools.partial(f1, label=1), matthews]


def value(statistic: Any, gold: np.ndarray, predicted: np.ndarray) -> float:
    table, counts = tabulate(gold, predicted, 3)
    return float(statistic(table, counts[:, None].astype(float))[0])


@pytest.mark.parametrize("statistic", STATISTICS)
def test_tables_are_compared_as_their_rows_are(statistic: Any) -> None:
    """Difference, interval and p-value are those of loops that draw rows, and swap their predictions, one by one."""
    gold, first, second = two_predictions(80, 3, 5)
    found = paired_table(statistic, gold, first, second, 3, seed=0)
    observed = value(statistic, gold, first) - value(statistic, gold, second)
    assert observed == pytest.approx(found.difference, abs=1e-12)
    generator = np.random.default_rng(0)
    drawn = [generator.integers(80, size=80) for _ in range(2000)]
    naive = [value(statistic, gold[rows], first[rows]) - value(statistic, gold[rows], second[rows]) for rows in drawn]
    assert np.quantile(naive, [0.025, 0.975]) == pytest.approx((found.interval.low, found.interval.high), abs=0.025)
    extreme = 0
    for _ in range(2000):
        is_kept = generator.random(80) < 0.5
        ours, theirs = np.where(is_kept, first, second), np.where(is_kept, second, first)
        extreme += abs(value(statistic, gold, ours) - value(statistic, gold, theirs)) >= abs(observed) - 1e-12
    assert extreme / 2000 == pytest.approx(found.p_value, abs=0.04)
    assert ("bootstrap", "swapped predictions") == (found.interval.kind, found.test)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("seed", range(3))
def test_swaps_are_a_sample_of_all_swaps(statistic: Any, seed: int) -> None:
    """With few rows the p-value is the share of all ways to swap that are as extreme."""
    gold, first, second = two_predictions(16, 3, seed)
    apart = np.flatnonzero(first != second)
    observed = value(statistic, gold, first) - value(statistic, gold, second)
    extreme = []
    for swap in itertools.product([False, True], repeat=len(apart)):
        ours, theirs = first.copy(), second.copy()
        ours[apart[list(swap)]], theirs[apart[list(swap)]] = second[apart[list(swap)]], first[apart[list(swap)]]
        extreme.append(abs(value(statistic, gold, ours) - value(statistic, gold, theirs)) >= abs(observed) - 1e-12)
    found = paired_table(statistic, gold, first, second, 3, seed=0)
    assert np.mean(extreme) == pytest.approx(found.p_value, abs=0.015)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_comparison_turned_round_is_its_negative(statistic: Any) -> None:
    """The pairing is symmetric, and a cell does not differ from itself."""
    gold, first, second = two_predictions(60, 3, 1)
    one = paired_table(statistic, gold, first, second, 3, seed=0)
    other = paired_table(statistic, gold, second, first, 3, seed=0)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == pytest.approx(other.p_value, abs=0.02)
    same = paired_table(statistic, gold, first, first, 3, seed=0)
    assert (0.0, 0.0, 0.0, 1.0) == (same.difference, same.interval.low, same.interval.high, same.p_value)


def test_chunks_of_swaps_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swaps are counted a few at a time where there are many cells, with the same outcome."""
    gold, first, second = two_predictions(60, 3, 2)
    found = paired_table(macro_f1, gold, first, second, 3, seed=0)
    monkeypatch.setattr(paired, "chunk_sizes", lambda total, width: [total // 3] * 3)
    assert found == paired_table(macro_f1, gold, first, second, 3, seed=0)


@pytest.mark.parametrize(
    "p_values", [[0.01, 0.04, 0.03, 0.005], [0.5], [0.6, 0.7, 0.9], [0.2, 0.2, 0.9, 0.0], [0.02, 0.02, 1.0]]
)
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    """Adjusted p-values stand in the order given, grow with the p-values and end at 1."""
    assert multipletests(p_values, method="holm")[1].tolist() == pytest.approx(holm(p_values))


def test_holm_of_nothing_is_nothing() -> None:
    """An empty family has no alarms."""
    assert [] == holm([])
