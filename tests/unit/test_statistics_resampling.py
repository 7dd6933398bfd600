"""The bootstrap: its draws are those of a naive one, shared, and made without much memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from promptlab.statistics import resampling
from promptlab.statistics.resampling import bootstrap, chunk_sizes, draw_counts, draw_rows

COUNTS = np.array([1, 20, 3, 16])


def all_rows(num_rows: int, seed: int, num_resamples: int) -> np.ndarray:
    return np.concatenate(list(draw_rows(num_rows, seed, num_resamples)))


def all_counts(counts: np.ndarray, seed: int, num_resamples: int) -> np.ndarray:
    return np.concatenate(list(draw_counts(counts, seed, num_resamples)), axis=1)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    """For a mean of many rows the percentile interval is the normal one, within a tenth of its width."""
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap(lambda counts: counts @ values / len(values), len(values), seed=1, num_resamples=2000)
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=(high - low) / 10)
    assert interval.kind == "bootstrap"


def test_bootstrap_of_a_constant_has_no_width() -> None:
    """Equal rows leave nothing to be unsure of."""
    interval = bootstrap(lambda counts: counts @ np.full(5, 0.3) / 5, 5, seed=0)
    assert (interval.low, interval.high) == pytest.approx((0.3, 0.3))


def test_equal_seeds_draw_equal_resamples() -> None:
    """The draws depend on the seed and the number of rows alone, so metrics of a run share them."""
    draws = all_rows(7, 3, 50)
    assert np.array_equal(draws, all_rows(7, 3, 50))
    assert not np.array_equal(draws, all_rows(7, 4, 50))
    assert {7} == set(draws.sum(axis=1).tolist())


@pytest.mark.parametrize("kept", [0, 4096])
def test_chunks_change_no_number(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Draws in chunks of one resample are the draws in one chunk, of rows and of tables."""
    monkeypatch.setattr(resampling, "KEPT_ROWS", kept)
    rows, counts = all_rows(40, 5, 30), all_counts(COUNTS, 5, 30)
    resampling._drawn_before.cache_clear()
    monkeypatch.setattr(resampling, "_CHUNK", 1)
    assert 30 == len(list(draw_rows(40, 5, 30))) == len(list(draw_counts(COUNTS, 5, 30)))
    assert np.array_equal(rows, all_rows(40, 5, 30))
    assert np.array_equal(counts, all_counts(COUNTS, 5, 30))


def test_chunks_sum_up() -> None:
    """Every resample is in one chunk, however wide it is."""
    assert [1] * 3 == list(chunk_sizes(3, 10**9))
    assert 1000 == sum(chunk_sizes(1000, 1500))
    assert [5] == list(chunk_sizes(5, 0))


def test_counts_of_a_small_table_are_those_of_its_rows() -> None:
    """A cell is drawn as often as its rows are: the row bootstrap itself, with the rows of a cell side by side."""
    cell = np.repeat(np.arange(len(COUNTS)), COUNTS)
    rows = all_rows(40, 2, 500)
    expected = np.stack([rows[:, cell == number].sum(axis=1) for number in range(len(COUNTS))])
    assert np.array_equal(expected, all_counts(COUNTS, 2, 500))


@pytest.mark.parametrize("kept", [0, 4096])
def test_counts_are_multinomial(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Kept or not, the drawn counts have the mean, the covariance and the margin of a bootstrap over rows."""
    monkeypatch.setattr(resampling, "KEPT_ROWS", kept)
    share = COUNTS / 40
    drawn = all_counts(COUNTS, 0, 20_000)
    assert {40} == set(drawn.sum(axis=0).tolist())
    assert COUNTS == pytest.approx(drawn.mean(axis=1), abs=0.08)
    assert 40 * (np.diag(share) - np.outer(share, share)) == pytest.approx(np.cov(drawn), abs=0.35)
    observed = np.bincount(drawn[0].astype(int), minlength=8)[:8]
    chances = stats.binom.pmf(np.arange(8), 40, share[0])
    assert chances == pytest.approx(observed / 20_000, abs=0.015)


def test_many_rows_cost_little_memory() -> None:
    """The draws for 100,000 rows hold a few MB at a time, of rows and of tables of many cells."""
    counts = np.full(5000, 20)
    tracemalloc.start()
    for drawn in draw_rows(100_000, 0, 8):
        assert 8 * 100_000 >= drawn.size
    for drawn in draw_counts(counts, 0, 100):
        assert 100_000 == drawn[:, 0].sum()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20
