"""Agreement of templates against a loop over pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from promptlab.statistics.agreement import consistency
from promptlab.statistics.intervals import Estimate
from promptlab.statistics.tables import NONE


def agree(predictions: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Estimate:
    """The consistency of predicted labels (template, row) out of three, -1 for a row that was not scored."""
    counts = np.stack([(predictions == label).sum(axis=0) for label in range(3)], axis=1)
    return consistency(counts, len(predictions))


@pytest.mark.parametrize("num_templates", [2, 3, 8])
def test_consistency_is_the_share_of_agreeing_pairs(num_templates: int) -> None:
    """The mean over rows of the share of pairs with one label; rows that were not scored agree with nothing."""
    predictions = np.random.default_rng(num_templates).integers(NONE, 3, size=(num_templates, 50))
    shares = [np.mean([one == other != NONE for one, other in combinations(row.tolist(), 2)]) for row in predictions.T]
    found = agree(predictions)
    interval = stats.t.interval(0.95, 49, np.mean(shares), stats.sem(shares))
    assert np.mean(shares) == pytest.approx(found.value)
    assert interval == pytest.approx((found.interval.low, found.interval.high))


def test_consistency_of_equal_and_of_unscored_predictions() -> None:
    """Templates that always agree have 1, templates that score nothing have 0."""
    assert 1.0 == agree(np.array([[0, 1, 2]] * 4)).value
    found = agree(np.full((4, 3), NONE))
    assert (0.0, 0.0, 0.0) == (found.value, found.interval.low, found.interval.high)


def test_the_interval_stays_between_none_and_all() -> None:
    """A share is at least 0 and at most 1; one row says nothing but that."""
    assert 1.0 == agree(np.array([[0, 0, 0], [0, 0, 1]])).interval.high
    found = agree(np.array([[0], [0]]))
    assert (1.0, 0.0, 1.0) == (found.value, found.interval.low, found.interval.high)


def test_one_template_has_no_pairs() -> None:
    """Agreement needs two."""
    with pytest.raises(ValueError, match="1 templates have no pairs to agree"):
        agree(np.zeros((1, 5), dtype=int))
