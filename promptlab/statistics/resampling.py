"""The bootstrap over rows, for what is no mean: draws of rows, and draws of tables of counts.

Memory stays flat: draws are made and used in chunks of resamples, whose size no number depends on. What depends on the
rows only through how many are alike is resampled by drawing these numbers, which is the same bootstrap at a fraction of
the cost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from promptlab.seeding import derive_generator
from promptlab.statistics.intervals import CONFIDENCE, Interval

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, UInt16

NUM_RESAMPLES = 1000
KEPT_ROWS = 4096  # draws for up to so many rows are kept between cells: at most 8 MB
_CHUNK = 1 << 18  # numbers that a chunk of draws holds: 2 MB


def bootstrap(
    statistic: Callable[[Float64[np.ndarray, "resample row"]], Float64[np.ndarray, " resample"]],
    num_rows: int,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13).

    Args:
        statistic: the statistic of each resample, given how often each row was drawn (one row of counts a resample);
            it is called with some resamples at a time.
        num_rows: how many rows there are.
        seed: the user's seed.
        num_resamples: how many resamples.
        confidence: the two-sided confidence.
    """
    values = np.concatenate([statistic(counts) for counts in draw_rows(num_rows, seed, num_resamples)])
    return percentile_interval(values, confidence)


def percentile_interval(values: Float64[np.ndarray, " resample"], confidence: float = CONFIDENCE) -> Interval:
    """The middle of the resampled values."""
    low, high = quantiles(values, confidence)
    return Interval(low, high, "bootstrap", confidence)


def quantiles(values: Float64[np.ndarray, " resample"], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two values between which the middle of the given share lies."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def draw_rows(
    num_rows: int, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Iterator[Float64[np.ndarray, "resample row"]]:
    """How often each row is drawn in each resample, some resamples at a time.

    The draws depend on the seed and the number of rows alone, so cells on the same rows share them.
    """
    generator = derive_generator(seed, "bootstrap", num_rows)
    for size in chunk_sizes(num_resamples, num_rows):
        drawn = generator.integers(num_rows, size=(size, num_rows))
        drawn += num_rows * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_rows).reshape(size, num_rows)
        yield counts.astype(np.float64)


def draw_counts(
    counts: Int64[np.ndarray, " cell"], seed: int, num_resamples: int = NUM_RESAMPLES
) -> Iterator[Float64[np.ndarray, "cell resample"]]:
    """How many rows of each cell of a table are drawn in each resample of its rows, some resamples at a time.

    Rows of a cell are alike, so these numbers are multinomial; for few rows they are read from draws that are kept.
    """
    num_rows = int(counts.sum())
    sizes = chunk_sizes(num_resamples, len(counts))
    if num_rows > KEPT_ROWS:
        generator = derive_generator(seed, "bootstrap", num_rows)
        for size in sizes:
            yield generator.multinomial(num_rows, counts / num_rows, size=size).T.astype(np.float64, order="C")
        return
    kept, ends, start = _drawn_before(num_rows, seed, num_resamples), np.concatenate([[0], np.cumsum(counts)]), 0
    for size in sizes:
        yield np.diff(kept[ends, start : start + size], axis=0).astype(np.float64)
        start += size


@functools.lru_cache(maxsize=2)
def _drawn_before(num_rows: int, seed: int, num_resamples: int) -> UInt16[np.ndarray, "row resample"]:
    """How often one of the first i rows is drawn, for i from 0 to all.

    Resampling does not know the order of rows: let the rows of a cell stand together, and the cell gets what is drawn
    between its first and its last.
    """
    before = np.zeros((num_rows + 1, num_resamples), dtype=np.uint16)
    start = 0
    for counts in draw_rows(num_rows, seed, num_resamples):
        np.cumsum(counts.T, axis=0, dtype=np.uint16, out=before[1:, start : start + len(counts)])
        start += len(counts)
    before.flags.writeable = False
    return before


def chunk_sizes(total: int, width: int) -> Iterator[int]:
    """Sizes of chunks that sum up to `total` and hold about as many numbers each, `width` an item."""
    size = max(1, _CHUNK // max(1, width))
    for start in range(0, total, size):
        yield min(size, total - start)
