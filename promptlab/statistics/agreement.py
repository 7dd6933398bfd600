"""How much many cells agree on the same rows, right or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptlab.statistics.intervals import Estimate, mean_interval

if TYPE_CHECKING:
    from jaxtyping import Int64


def consistency(predictions: Int64[np.ndarray, "template row"], num_labels: int) -> Estimate:
    """Mean over rows of the share of pairs of templates that predict the same label; t interval over rows.

    This is the consistency rate of SCORE (Nalbandyan et al. 2025, after Zhao et al. 2024). A row that a template could
    not score (-1) agrees with nothing, not even with another such.

    Raises:
        ValueError: fewer than two templates have no pairs.
    """
    counts = np.stack([(predictions == label).sum(axis=0) for label in range(num_labels)], axis=1)
    return consistency_of_counts(counts, len(predictions))


def consistency_of_counts(counts: Int64[np.ndarray, "row label"], num_templates: int) -> Estimate:
    """`consistency` from how many of the templates predict each label of each row.

    Raises:
        ValueError: fewer than two templates have no pairs.
    """
    if num_templates < 2:
        raise ValueError(f"{num_templates} templates have no pairs to agree")
    shares = (counts * (counts - 1)).sum(axis=1) / (num_templates * (num_templates - 1))
    return Estimate(float(shares.mean()), mean_interval(shares, lowest=0.0, highest=1.0))
