"""Simulated coverage: how often the stated 95 % intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from promptlab.metrics import Outcome, measure
from promptlab.statistics import wilson

NUM_SIMULATIONS = 2000


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [100, 400])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_wilson_holds_the_truth_as_often_as_it_says(num_rows: int, share: float) -> None:
    """With n >= 100 and .1 <= p <= .9 the Wilson interval covers between 93 and 97 %; computed exactly over counts."""
    from scipy.stats import binom

    hits = np.arange(num_rows + 1)
    intervals = [wilson(int(count), num_rows) for count in hits]
    holds = np.array([interval.low <= share <= interval.high for interval in intervals])
    assert 0.93 <= float(binom.pmf(hits, num_rows, share)[holds].sum()) <= 0.97


@pytest.mark.slow
def test_bootstrap_of_the_loss_holds_the_truth() -> None:
    """The bootstrap interval of the mean loss of 200 rows covers between 92 and 97 % of simulated test sets."""
    generator = np.random.default_rng(0)
    truth = float(-np.log(generator.beta(4, 2, size=2_000_000)).mean())
    covered = 0
    for seed in range(NUM_SIMULATIONS):
        chosen = generator.beta(4, 2, size=200)
        outcome = Outcome(np.zeros(200, dtype=int), np.zeros(200, dtype=int), np.stack([chosen, 1 - chosen], axis=1))
        interval = measure("nll", outcome, seed=seed % 50).interval
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / NUM_SIMULATIONS <= 0.97
