"""Intervals in closed form against other people's implementations and published examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from promptlab.statistics.intervals import bonett_price, mean_interval, wilson


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


@pytest.mark.parametrize("num_values", [2, 7, 400])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_t_interval_is_scipys(num_values: int, confidence: float) -> None:
    """Mean, standard error and quantile are those of scipy."""
    values = np.random.default_rng(num_values).normal(size=num_values)
    known = stats.t.interval(confidence, num_values - 1, values.mean(), stats.sem(values))
    found = mean_interval(values, confidence=confidence)
    assert known == pytest.approx((found.low, found.high), abs=1e-9)
    assert ("t", confidence) == (found.kind, found.confidence)


def test_the_t_interval_keeps_to_what_a_mean_can_be() -> None:
    """A loss is not negative, whatever its spread."""
    values = np.array([0.0, 0.0, 0.0, 9.0])
    assert mean_interval(values).low < 0 < 9 < mean_interval(values).high
    found = mean_interval(values, lowest=0.0, highest=9.0)
    assert (0.0, 9.0) == (found.low, found.high)


def test_one_value_says_nothing_of_a_mean_but_its_bounds() -> None:
    """There is no spread to go by, so the interval is all that is possible; without bounds there is none."""
    found = mean_interval(np.array([0.3]), lowest=0.0, highest=2.0)
    assert (0.0, 2.0) == (found.low, found.high)
    with pytest.raises(ValueError, match="1 values have no spread"):
        mean_interval(np.array([0.3]), lowest=0.0)
    with pytest.raises(ValueError, match="0 values have no spread"):
        mean_interval(np.array([]), lowest=0.0, highest=1.0)


@pytest.mark.parametrize(
    ("num_first", "num_second", "num_rows", "low", "high"),
    [
        (26, 4, 48, 0.2548067, 0.6251933),  # the example of the authors' ci.prop.ps
        (1, 7, 21, -0.508, -0.013),  # table V of Fagerland et al. 2014
    ],
)
def test_bonett_price_is_the_published_one(
    num_first: int, num_second: int, num_rows: int, low: float, high: float
) -> None:
    """The interval of a paired difference of proportions is that of two published examples."""
    found = bonett_price(num_first, num_second, num_rows)
    digits = 5e-4 if num_rows == 21 else 1e-7
    assert (low, high) == pytest.approx((found.low, found.high), abs=digits)
    assert found.kind == "bonett-price"


def test_bonett_price_has_a_width_where_nothing_differs() -> None:
    """Two cells that agree on every row may still differ on others, and no difference exceeds 1."""
    same = bonett_price(0, 0, 30)
    assert same.low < -0.05 < 0.05 < same.high
    assert same.low == pytest.approx(-same.high)
    assert bonett_price(3, 0, 3).high == 1.0
    assert bonett_price(0, 3, 3).low == -1.0


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 2, 3), (-1, 0, 3)])
def test_bonett_price_refuses_what_is_no_pair_of_counts(counts: tuple[int, int, int]) -> None:
    """No rows and more discordant rows than rows are programming errors."""
    with pytest.raises(ValueError, match="are no discordant pairs"):
        bonett_price(*counts)
