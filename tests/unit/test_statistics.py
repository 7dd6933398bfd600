"""Intervals against other people's implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from promptlab.statistics import bootstrap, resample_counts, wilson


@pytest.mark.parametrize(("num_hits", "num_rows"), [(0, 1), (1, 1), (0, 12), (5, 12), (12, 12), (56, 56), (900, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(num_hits: int, num_rows: int, confidence: float) -> None:
    """The interval of a proportion is that of scipy, at the edges too."""
    known = stats.binomtest(num_hits, num_rows).proportion_ci(confidence, method="wilson")
    found = wilson(num_hits, num_rows, confidence)
    assert (known.low, known.high) == pytest.approx((found.low, found.high), abs=1e-12)
    assert (found.kind, found.confidence) == ("wilson", confidence)


@pytest.mark.parametrize(("num_hits", "num_rows"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_proportion(num_hits: int, num_rows: int) -> None:
    """No rows and more hits than rows are programming errors."""
    with pytest.raises(ValueError, match=f"{num_hits} of {num_rows} is no proportion"):
        wilson(num_hits, num_rows)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    """For a mean of many rows the percentile interval is the normal one, within a tenth of its width."""
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap(lambda counts: counts @ values / len(values), len(values), seed=1, num_resamples=2000)
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=(high - low) / 10)
    assert interval.kind == "bootstrap"


def test_equal_seeds_draw_equal_resamples() -> None:
    """The draws depend on the seed and the number of rows alone, so metrics of a run share them."""
    draws = resample_counts(7, 50, seed=3)
    assert np.array_equal(draws, resample_counts(7, 50, seed=3))
    assert not np.array_equal(draws, resample_counts(7, 50, seed=4))
    assert {7} == set(draws.sum(axis=1).tolist())


def test_bootstrap_of_a_constant_has_no_width() -> None:
    """Equal rows leave nothing to be unsure of."""
    interval = bootstrap(lambda counts: counts @ np.full(5, 0.3) / 5, 5, seed=0)
    assert (interval.low, interval.high) == pytest.approx((0.3, 0.3))
