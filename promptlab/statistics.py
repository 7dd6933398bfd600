"""Intervals for what was measured on a sample of rows: pure functions on arrays.

Wilson for proportions (Bowyer et al. 2025 advise against the normal approximation on small test sets), a percentile
bootstrap over rows for every other metric. Each interval is two-sided and names its kind.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.seeding import derive_generator

if TYPE_CHECKING:
    from jaxtyping import Float64

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval at the given confidence, and the method that made it."""

    low: float
    high: float
    kind: str
    confidence: float = CONFIDENCE


def wilson(num_hits: int, num_rows: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927): the values that a z-test would not reject.

    Raises:
        ValueError: no rows, or more hits than rows.
    """
    if not 0 <= num_hits <= num_rows or num_rows == 0:
        raise ValueError(f"{num_hits} of {num_rows} is no proportion")
    z = _normal_quantile(0.5 + confidence / 2)
    share = num_hits / num_rows
    center = share + z * z / (2 * num_rows)
    half = z * math.sqrt(share * (1 - share) / num_rows + z * z / (4 * num_rows * num_rows))
    scale = 1 + z * z / num_rows
    low = 0.0 if num_hits == 0 else (center - half) / scale
    high = 1.0 if num_hits == num_rows else (center + half) / scale
    return Interval(low, high, "wilson", confidence)


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
        statistic: the statistic of each resample, given how often each row was drawn (one row of counts a resample).
        num_rows: how many rows there are.
        seed: the user's seed.
        num_resamples: how many resamples.
        confidence: the two-sided confidence.
    """
    values = statistic(resample_counts(num_rows, num_resamples, seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap", confidence)


@functools.lru_cache(maxsize=2)
def resample_counts(num_rows: int, num_resamples: int, seed: int) -> Float64[np.ndarray, "resample row"]:
    """How often each row is drawn in each resample; the same draws for every cell of a run, so they are kept."""
    generator = derive_generator(seed, "bootstrap", num_rows)
    counts = generator.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=num_resamples).astype(np.float64)
    counts.flags.writeable = False
    return counts


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)
