"""LabelScores -> LabelScores without the prior that the prompt itself induces.

Each calibration subtracts a log-prior over labels from s(x, y) and renormalises; they are different estimators and keep
their names in every stored number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, logsumexp

from promptlab.registry import CALIBRATIONS

if TYPE_CHECKING:
    from jaxtyping import Float64

CONTENT_FREE_TEXTS = ("N/A", "", "none")

LogPrior = Callable[["Float64[np.ndarray, 'text label']"], "Float64[np.ndarray, ' label']"]


def calibrate(
    name: str, scores: Float64[np.ndarray, "row label"], content_free: Float64[np.ndarray, "text label"]
) -> Float64[np.ndarray, "row label"]:
    """Label scores with the named calibration applied, normalised over labels (log p(y | x)).

    Args:
        name: a registered calibration.
        scores: s(x, y) of the rows; NaN rows stay NaN.
        content_free: s(c, y) of the content-free texts through the same template.
    """
    log_prior: LogPrior = CALIBRATIONS.get(name)
    calibrated: Float64[np.ndarray, "row label"] = log_softmax(scores - log_prior(content_free), axis=1)
    return calibrated


@CALIBRATIONS.register("none")
def none(content_free: Float64[np.ndarray, "text label"]) -> Float64[np.ndarray, " label"]:
    """No correction: a log-prior of zero."""
    return np.zeros(content_free.shape[1])


@CALIBRATIONS.register("contextual")
def contextual(content_free: Float64[np.ndarray, "text label"]) -> Float64[np.ndarray, " label"]:
    """Contextual calibration (Zhao et al. 2021, section 4): log of the mean over content-free texts of p(y | c)."""
    log_probabilities = log_softmax(content_free, axis=1)
    prior: Float64[np.ndarray, " label"] = logsumexp(log_probabilities, axis=0) - np.log(len(content_free))
    return prior
