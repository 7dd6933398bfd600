"""Simulated coverage: how often the stated 95 % intervals hold the truth, and how often tests at 5 % reject it.

The bounds are the measured figures with room for the noise of the simulation; the figures are in
`docs/design/numbers.md`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from promptlab.metrics import Outcome, compare, measure
from promptlab.statistics import paired
from promptlab.statistics.agreement import consistency
from promptlab.statistics.intervals import Interval, bonett_price, wilson
from promptlab.statistics.paired import mcnemar
from promptlab.statistics.reliability import calibration_error, debiased_calibration_error

NUM_SIMULATIONS = 2000
MANY = 400_000  # rows from which the truth is computed


def holds(interval: Interval, truth: float) -> bool:
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def told(name: str, *figures: float) -> None:
    """Show measured figures; `pytest -rP` prints them."""
    print(name, *(f"{figure:.3f}" for figure in figures))


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [100, 400])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_wilson_holds_the_truth_as_often_as_it_says(num_rows: int, share: float) -> None:
    """With n >= 100 and .1 <= p <= .9 the Wilson interval covers between 93 and 97 %; computed exactly over counts."""
    from scipy.stats import binom

    hits = np.arange(num_rows + 1)
    covers = np.array([holds(wilson(int(count), num_rows), share) for count in hits])
    assert 0.93 <= float(binom.pmf(hits, num_rows, share)[covers].sum()) <= 0.97


def cell(generator: np.random.Generator, num_rows: int, shares: list[float], sharpness: float) -> Outcome:
    """Rows with labels of these shares, and probabilities that lean towards the gold label."""
    num_labels = len(shares)
    gold = generator.choice(num_labels, p=shares, size=num_rows)
    scores = sharpness * generator.normal(size=(num_rows, num_labels))
    scores[np.arange(num_rows), gold] += sharpness
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Outcome(gold, probabilities.argmax(axis=1), probabilities, tuple("abcdefgh"[:num_labels]))


WORLDS = {
    "two": ([0.5, 0.5], 1.0),
    "confident": ([0.5, 0.5], 4.0),
    "rare": ([0.9, 0.1], 1.5),
    "six": ([0.3, 0.25, 0.2, 0.15, 0.07, 0.03], 1.5),
}


def coverage(name: str, world: str, num_rows: int) -> float:
    """How often the interval of a metric holds its value on very many rows."""
    truth = measure(name, cell(np.random.default_rng(1), MANY, *WORLDS[world]), seed=0).value
    generator = np.random.default_rng(0)
    found = (measure(name, cell(generator, num_rows, *WORLDS[world]), seed=0) for _ in range(NUM_SIMULATIONS))
    return sum(holds(measured.interval, truth) for measured in found) / NUM_SIMULATIONS


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["nll", "brier"])
@pytest.mark.parametrize("num_rows", [100, 500])
def test_t_intervals_of_losses_hold_the_truth(name: str, world: str, num_rows: int) -> None:
    """The t interval of a mean loss covers between 93 and 96.5 %, for skewed losses too."""
    covered = coverage(name, world, num_rows)
    told(f"{name} {world} {num_rows}", covered)
    assert 0.93 <= covered <= 0.965


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["macro_f1", "f1(b)", "matthews"])
@pytest.mark.parametrize("num_rows", [100, 500])
def test_bootstrap_intervals_of_tables_hold_the_truth(name: str, world: str, num_rows: int) -> None:
    """The percentile bootstrap covers between 91 and 96.5 %, least where a label has few of few rows."""
    covered = coverage(name, world, num_rows)
    told(f"{name} {world} {num_rows}", covered)
    assert 0.91 <= covered <= 0.965


def confident(
    generator: np.random.Generator, num_rows: int, over: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Confidences of two labels, and hits that are rarer by a share `over` of the confidence above one half."""
    confidence = 1 - 0.5 * generator.beta(1, 3, size=num_rows)
    return confidence, generator.random(num_rows) < confidence - over * (confidence - 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "plain", "debiased"),
    [(0.0, (0.6, 0.8), (0.97, 1.0)), (0.1, (0.86, 0.97), (0.97, 1.0)), (0.4, (0.9, 0.97), (0.94, 0.99))],
)
@pytest.mark.parametrize("num_rows", [200, 1500])
def test_intervals_of_calibration_errors_are_approximate(
    over: float, plain: tuple[float, float], debiased: tuple[float, float], num_rows: int
) -> None:
    """Where confidence is right the plain error rarely reaches 0; the debiased one covers more than it says."""
    confidence, _ = confident(np.random.default_rng(1), MANY, 0.0)
    gap = over * (confidence - 0.5)
    bins = np.argsort(np.argsort(confidence)) * 15 // MANY
    truths = gap.mean(), float(np.sqrt((np.bincount(bins, gap) ** 2 / np.bincount(bins)).sum() / MANY))
    generator, covered = np.random.default_rng(0), np.zeros(2)
    for seed in range(500):
        rows = confident(generator, num_rows, over)
        errors = calibration_error(*rows, seed=seed), debiased_calibration_error(*rows, seed=seed)
        covered += [holds(error.interval, truth) for error, truth in zip(errors, truths, strict=True)]
    told(f"ece, ece_debiased {over} {num_rows}", *covered / 500)
    for share, (low, high) in zip(covered / 500, (plain, debiased), strict=True):
        assert low <= share <= high


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.02, 0.06), (0.2, 0.1)])
@pytest.mark.parametrize("num_rows", [50, 300])
def test_paired_accuracy_is_as_sure_as_it_says(shares: tuple[float, float], num_rows: int) -> None:
    """Bonett and Price's interval covers between 94 and 99 %; McNemar's mid-p rejects equals at most at 5 %."""
    generator = np.random.default_rng(0)
    first, second, _ = generator.multinomial(num_rows, [*shares, 1 - sum(shares)], size=10_000).T
    counts, often = np.unique(np.stack([first, second]), axis=1, return_counts=True)
    pairs = [(int(one), int(other)) for one, other in counts.T]
    covers = [holds(bonett_price(*pair, num_rows), shares[0] - shares[1]) for pair in pairs]
    covered = float(often[np.array(covers)].sum() / 10_000)
    rejected = float(often[np.array([mcnemar(*pair) <= 0.05 for pair in pairs])].sum() / 10_000)
    told(f"accuracy {shares} {num_rows}", covered, rejected)
    assert 0.94 <= covered <= 0.99
    assert shares[0] != shares[1] or rejected <= 0.055


def pairs(
    generator: np.random.Generator, num_rows: int, shares: list[float], sharpness: float, gap: float
) -> tuple[Outcome, Outcome]:
    """Two cells on the same rows that share half of their noise; the first is sharper by `gap`."""
    num_labels, index = len(shares), np.arange(num_rows)
    gold = generator.choice(num_labels, p=shares, size=num_rows)
    common = generator.normal(size=(num_rows, num_labels))
    made = []
    for lead in (sharpness + gap, sharpness):
        scores = common + generator.normal(size=(num_rows, num_labels))
        scores[index, gold] += lead
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        made.append(Outcome(gold, probabilities.argmax(axis=1), probabilities, tuple("abcdefgh"[:num_labels])))
    return made[0], made[1]


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("world", ["two", "rare", "six"])
@pytest.mark.parametrize("name", ["nll", "macro_f1", "f1(b)", "matthews"])
def test_paired_comparisons_are_as_sure_as_they_say(
    monkeypatch: pytest.MonkeyPatch, name: str, world: str, gap: float
) -> None:
    """On 150 rows the interval covers between 92 and 97 %, and the test rejects equals between 3 and 6.5 %."""
    monkeypatch.setattr(paired, "NUM_PERMUTATIONS", 999)
    large = pairs(np.random.default_rng(1), MANY, *WORLDS[world], gap)
    truth = measure(name, large[0], seed=0).value - measure(name, large[1], seed=0).value
    generator = np.random.default_rng(0)
    found = [compare(name, *pairs(generator, 150, *WORLDS[world], gap), seed=seed) for seed in range(1000)]
    covered = sum(holds(comparison.interval, truth if gap else 0.0) for comparison in found) / 1000
    rejected = sum(comparison.p_value <= 0.05 for comparison in found) / 1000
    told(f"{name} {world} {gap}", covered, rejected)
    assert 0.92 <= covered <= 0.97
    assert 0.03 <= rejected <= 0.065 or gap


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [50, 300])
def test_consistency_holds_the_truth(num_rows: int) -> None:
    """The t interval of the agreement of five templates covers between 93 and 96.5 %."""

    def predictions(generator: np.random.Generator, num_rows: int) -> np.ndarray[Any, Any]:
        return (generator.random(num_rows) < generator.random((5, num_rows)) ** 2).astype(int)

    truth = consistency(predictions(np.random.default_rng(1), 2 * MANY)).value
    generator = np.random.default_rng(0)
    found = (consistency(predictions(generator, num_rows)) for _ in range(NUM_SIMULATIONS))
    covered = sum(holds(estimate.interval, truth) for estimate in found) / NUM_SIMULATIONS
    told(f"consistency {num_rows}", covered)
    assert 0.93 <= covered <= 0.965
