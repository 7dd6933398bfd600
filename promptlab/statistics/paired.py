"""Two cells on the same rows: how far apart they are, how sure that is, and whether it may be chance.

Every difference is first minus second. What is equal on both sides cancels, so a paired comparison is sharper than two
intervals side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, gammaln

from promptlab.seeding import derive_generator
from promptlab.statistics.intervals import Interval, bonett_price, mean_interval
from promptlab.statistics.resampling import chunk_sizes, draw_counts, percentile_interval
from promptlab.statistics.tables import Statistic, Table

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

NUM_PERMUTATIONS = 9_999
_ROUNDING = 1e-12  # sums that differ by less, relative to their terms, are equal


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second on the same rows, its interval, and the p-value of "no difference" by the named test."""

    difference: float
    interval: Interval
    p_value: float
    test: str


def paired_difference(
    first: Float64[np.ndarray, " row"], second: Float64[np.ndarray, " row"], *, seed: int, limit: float = math.inf
) -> Comparison:
    """The difference of two means over the same rows: t interval (Miller 2024), test by flipping signs.

    The t interval needs no draws and covers no worse than the percentile bootstrap of the mean, which is narrower by
    the factor sqrt((n - 1) / n) and has normal quantiles.

    Args:
        first: a score a row, such as a loss.
        second: the other cell's, for the same rows in the same order.
        seed: the user's seed, for the test.
        limit: the largest difference that there can be; needed where there is one row alone.
    """
    differences = first - second
    interval = mean_interval(differences, lowest=-limit, highest=limit)
    return Comparison(float(differences.mean()), interval, permutation_test(differences, seed=seed), "sign flips")


def paired_accuracy(first: Bool[np.ndarray, " row"], second: Bool[np.ndarray, " row"]) -> Comparison:
    """The difference of two accuracies on the same rows: Bonett and Price's interval, McNemar's mid-p test."""
    num_first, num_second = int((first & ~second).sum()), int((second & ~first).sum())
    interval = bonett_price(num_first, num_second, len(first))
    difference = (num_first - num_second) / len(first)
    return Comparison(difference, interval, mcnemar(num_first, num_second), "mcnemar mid-p")


def mcnemar(num_first: int, num_second: int) -> float:
    """The mid-p value of McNemar's exact test (Fagerland et al. 2013), 1 where no row tells the cells apart.

    Args:
        num_first: rows that only the first gets right; binomial with 1/2 if there is no difference.
        num_second: rows that only the second gets right.
    """
    fewer, total = min(num_first, num_second), num_first + num_second
    if total == 0:
        return 1.0
    log_chance = gammaln(total + 1) - gammaln(fewer + 1) - gammaln(total - fewer + 1) - total * math.log(2)
    chance = float(np.exp(log_chance))  # of exactly this split
    return 1 - chance / 2 if num_first == num_second else float(2 * bdtr(fewer, total, 0.5)) - chance


def permutation_test(
    differences: Float64[np.ndarray, " row"], *, seed: int, num_permutations: int = NUM_PERMUTATIONS
) -> float:
    """The p-value of a mean difference of 0: (1 + extreme) / (1 + R) over R random flips of the rows' signs.

    A flip is extreme where its mean is at least as far from 0 as that of the rows (Phipson and Smyth 2010 on the 1).
    """
    differences = differences[differences != 0]
    total, size = float(differences.sum()), float(np.abs(differences).sum())
    generator = derive_generator(seed, "permutation", len(differences))
    num_extreme = 0
    for number in chunk_sizes(num_permutations, len(differences)):
        is_kept = generator.integers(2, size=(number, len(differences)), dtype=np.int8)
        flipped = 2 * (is_kept.astype(np.float64) @ differences) - total
        num_extreme += int((np.abs(flipped) >= abs(total) - _ROUNDING * size).sum())
    return (1 + num_extreme) / (1 + num_permutations)


def paired_table(
    statistic: Statistic,
    gold: Int64[np.ndarray, " row"],
    first: Int64[np.ndarray, " row"],
    second: Int64[np.ndarray, " row"],
    num_labels: int,
    *,
    seed: int,
) -> Comparison:
    """The difference of a statistic of two tables on the same rows: paired bootstrap, test by swapping predictions.

    Both draw from the joint table of gold, first and second prediction. In the test each row's two
    predictions are swapped or not with equal chance (Yeh 2000).

    Args:
        statistic: of gold against predicted.
        gold: label indices.
        first: predicted label indices, -1 for a row that could not be scored.
        second: the other cell's.
        num_labels: how many labels there are.
        seed: the user's seed.
    """
    joint, counts = np.unique(np.stack([gold, first, second]), axis=1, return_counts=True)
    ours, theirs = (Table(joint[0], joint[side], num_labels) for side in (1, 2))

    def difference(drawn: Float64[np.ndarray, "cell resample"]) -> Float64[np.ndarray, " resample"]:
        differences: Float64[np.ndarray, " resample"] = statistic(ours, drawn) - statistic(theirs, drawn)
        return differences

    value = float(difference(counts[:, None].astype(np.float64))[0])
    interval = percentile_interval(np.concatenate([difference(drawn) for drawn in draw_counts(counts, seed)]))
    p_value = _swap_test(statistic, ours, theirs, counts, value, seed)
    return Comparison(value, interval, p_value, "swapped predictions")


def _swap_test(
    statistic: Statistic, first: Table, second: Table, counts: Int64[np.ndarray, " cell"], value: float, seed: int
) -> float:
    """The share of swaps that take the two statistics at least as far apart; both tables have the same cells.

    How many rows of a cell are swapped is binomial with 1/2. Swapped rows are cells of their own, behind the others.
    """
    apart = np.flatnonzero(first.predicted != second.predicted)
    gold = np.concatenate([first.gold, first.gold[apart]])
    ours = Table(gold, np.concatenate([first.predicted, second.predicted[apart]]), first.num_labels)
    theirs = Table(gold, np.concatenate([second.predicted, first.predicted[apart]]), first.num_labels)
    generator = derive_generator(seed, "permutation", int(counts.sum()))
    num_extreme = 0
    for number in chunk_sizes(NUM_PERMUTATIONS, len(gold)):
        swapped = generator.binomial(counts[apart], 0.5, size=(number, len(apart))).T
        kept = np.repeat(counts[:, None], number, axis=1)
        kept[apart] -= swapped
        drawn = np.concatenate([kept, swapped]).astype(np.float64)
        differences = statistic(ours, drawn) - statistic(theirs, drawn)
        num_extreme += int((np.abs(differences) >= abs(value) - _ROUNDING).sum())
    return (1 + num_extreme) / (1 + NUM_PERMUTATIONS)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that keep the chance of one false alarm in the whole family (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted
