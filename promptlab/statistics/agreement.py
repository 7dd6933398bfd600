"""How much many templates agree on the same rows, right or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptlab.statistics.intervals import Estimate, mean_interval

if TYPE_CHECKING:
    from jaxtyping import Int


def consistency(counts: Int[np.ndarray, "row label"], num_templates: int) -> Estimate:
    """Mean over rows of the share of pairs of templates that predict the same label; t interval over rows.

    This is the consistency rate of SCORE (Nalbandyan et al. 2025, after Zhao et al. 2024). A template that could not
    score a row agrees with none on it.

    Args:
        counts: how many of the templates predict each label of each row.
        num_templates: how many there are.

    Raises:
        ValueError: fewer than two templates have no pairs.
    """
    if num_templates < 2:
        raise ValueError(f"{num_templates} templates have no pairs to agree")
    pairs = counts.astype(np.int64) * (counts - 1)
    shares = pairs.sum(axis=1) / (num_templates * (num_templates - 1))
    return Estimate(float(shares.mean()), mean_interval(shares, lowest=0.0, highest=1.0))
