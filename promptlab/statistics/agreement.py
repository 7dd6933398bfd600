"""How much many cells agree on the same rows, right or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptlab.statistics.intervals import Estimate, mean_interval
from promptlab.statistics.tables import NONE

if TYPE_CHECKING:
    from jaxtyping import Int64


def consistency(predictions: Int64[np.ndarray, "template row"]) -> Estimate:
    """Mean over rows of the share of pairs of templates that predict the same label; t interval over rows.

    This is the consistency rate of SCORE (Nalbandyan et al. 2025, after Zhao et al. 2024). A row that a template could
    not score (-1) agrees with nothing, not even with another such.

    Raises:
        ValueError: fewer than two templates have no pairs.
    """
    num_templates, num_rows = predictions.shape
    if num_templates < 2:
        raise ValueError(f"{num_templates} templates have no pairs to agree")
    num_agreeing = np.zeros(num_rows, dtype=np.int64)
    for label in np.unique(predictions[predictions != NONE]):
        count = (predictions == label).sum(axis=0)
        num_agreeing += count * (count - 1)
    shares = num_agreeing / (num_templates * (num_templates - 1))
    return Estimate(float(shares.mean()), mean_interval(shares, lowest=0.0, highest=1.0))
