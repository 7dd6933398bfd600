"""Intervals in closed form for what was measured on a sample of rows.

Wilson for proportions (Bowyer et al. 2025 advise against the normal approximation on small test sets), Student's t for
means, Bonett and Price for the difference of two proportions on the same rows. Each interval is two-sided and names
its kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

if TYPE_CHECKING:
    from jaxtyping import Float64

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval at the given confidence, and the method that made it."""

    low: float
    high: float
    kind: str
    confidence: float = CONFIDENCE


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval."""

    value: float
    interval: Interval


def wilson(num_hits: int, num_rows: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927): the values that a z-test would not reject.

    Raises:
        ValueError: no rows, or more hits than rows.
    """
    if not 0 <= num_hits <= num_rows or num_rows == 0:
        raise ValueError(f"{num_hits} of {num_rows} is no proportion")
    z = float(ndtri(0.5 + confidence / 2))
    share = num_hits / num_rows
    center = share + z * z / (2 * num_rows)
    half = z * math.sqrt(share * (1 - share) / num_rows + z * z / (4 * num_rows * num_rows))
    scale = 1 + z * z / num_rows
    low = 0.0 if num_hits == 0 else (center - half) / scale
    high = 1.0 if num_hits == num_rows else (center + half) / scale
    return Interval(low, high, "wilson", confidence)


def mean_interval(
    values: Float64[np.ndarray, " row"],
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Student's t interval of a mean, cut off at the lowest and the highest value that a mean can have.

    One value has no spread, so nothing is known of its mean but these bounds.

    Raises:
        ValueError: no values, or one value without bounds.
    """
    num_values = len(values)
    if num_values < 2:
        if num_values == 0 or math.isinf(lowest) or math.isinf(highest):
            raise ValueError(
                f"{num_values} values have no spread: an interval needs two, or one and bounds of the mean"
            )
        return Interval(lowest, highest, "t", confidence)
    mean = float(values.mean())
    half = float(stdtrit(num_values - 1, 0.5 + confidence / 2)) * float(values.std(ddof=1)) / math.sqrt(num_values)
    return Interval(max(lowest, mean - half), min(highest, mean + half), "t", confidence)


def bonett_price(num_first: int, num_second: int, num_rows: int, confidence: float = CONFIDENCE) -> Interval:
    """Adjusted Wald interval of the difference of two proportions on the same rows (Bonett and Price 2012).

    One imagined row is added where only the first is right and one where only the second is, so that two cells that
    agree on every row still have an interval with a width.

    Args:
        num_first: rows that only the first gets right.
        num_second: rows that only the second gets right.
        num_rows: all rows.
        confidence: the two-sided confidence.

    Raises:
        ValueError: no rows, or fewer than are counted.
    """
    if min(num_first, num_second) < 0 or num_rows == 0 or num_first + num_second > num_rows:
        raise ValueError(f"{num_first} and {num_second} of {num_rows} rows are no discordant pairs")
    first, second = (num_first + 1) / (num_rows + 2), (num_second + 1) / (num_rows + 2)
    error = math.sqrt((first + second - (first - second) ** 2) / (num_rows + 2))
    half = float(ndtri(0.5 + confidence / 2)) * error
    low, high = max(-1.0, first - second - half), min(1.0, first - second + half)
    return Interval(low, high, "bonett-price", confidence)
