"""Word scores -> label scores without the prior that the prompt itself induces.

Each calibration subtracts a log-prior, of labels or of words, and renormalises over labels. They are different
estimators and keep their names in every stored number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import log_softmax, logsumexp

from promptlab.registry import CALIBRATIONS

if TYPE_CHECKING:
    from jaxtyping import Float64

    LogPrior = Callable[["Float64[np.ndarray, 'prompt score']"], "Float64[np.ndarray, ' score']"]
    Pool = Callable[["Float64[np.ndarray, 'prompt word']"], "Float64[np.ndarray, 'prompt label']"]

Level = Literal["label", "word"]
ROWS = "rows"  # the scored rows themselves, as a place where a prior comes from
CONTENT_FREE = "content_free"


class Calibration:
    """One estimator of the prior.

    Args:
        name: its registered name.
        prompts: what the prior is estimated from: `content_free`, `domain`, `domain_prompt`, `support`, the scored
            `rows` themselves, or None where nothing is subtracted.
        level: whether the prior is one of labels, subtracted after pooling, or of words, subtracted before.
        log_prior: scores of those prompts, natural logarithms (prompt, label) or (prompt, word) -> log-prior, one
            number a label or a word; a constant on all of them changes nothing.
    """

    def __init__(self, name: str, prompts: str | None, level: Level, log_prior: LogPrior) -> None:
        self.name = name
        self.prompts = prompts
        self.level = level
        self.log_prior = log_prior
        self.__doc__ = log_prior.__doc__


def calibration(name: str, *, prompts: str | None, level: Level = "label") -> Callable[[LogPrior], LogPrior]:
    """A decorator that registers a function from scores to a log-prior; see `Calibration`."""

    def decorate(log_prior: LogPrior) -> LogPrior:
        CALIBRATIONS.register(name, Calibration(name, prompts, level, log_prior))
        return log_prior

    return decorate


def find_calibration(name: str) -> Calibration:
    """The calibration of that name; a function that another package registered alone reads the content-free texts.

    Raises:
        UsageError: the name is unknown.
    """
    found: Any = CALIBRATIONS.get(name)
    return found if isinstance(found, Calibration) else Calibration(name, CONTENT_FREE, "label", found)


def calibrate(
    found: Calibration,
    words: Float64[np.ndarray, "row word"],
    prior_words: Float64[np.ndarray, "prompt word"],
    pool: Pool,
) -> Float64[np.ndarray, "row label"]:
    """Label log-probabilities log p(y | x) with a calibration applied.

    Args:
        found: the calibration.
        words: log-probabilities of the label words at the mask of each row; NaN rows stay NaN.
        prior_words: the same at the prompts that the calibration names, without NaN; unused by one that needs none.
        pool: word scores -> label scores s(x, y).
    """
    if found.prompts is None:
        return _normalized(pool(words))
    if found.level == "word":
        return _normalized(pool(words - found.log_prior(prior_words)))
    return _normalized(pool(words) - found.log_prior(pool(prior_words)))


def mean_probability(scores: Float64[np.ndarray, "prompt label"]) -> Float64[np.ndarray, " label"]:
    """Log of the mean over prompts of p(y | prompt) = softmax over labels of s(prompt, y)."""
    mean: Float64[np.ndarray, " label"] = logsumexp(log_softmax(scores, axis=1), axis=0) - np.log(len(scores))
    return mean


@calibration("none", prompts=None)
def none(scores: Float64[np.ndarray, "prompt label"]) -> Float64[np.ndarray, " label"]:
    """No correction: a log-prior of zero."""
    return np.zeros(scores.shape[1])


@calibration("contextual", prompts=CONTENT_FREE)
def contextual(scores: Float64[np.ndarray, "prompt label"]) -> Float64[np.ndarray, " label"]:
    """Contextual calibration (Zhao et al. 2021, section 4): log of the mean over content-free texts of p(y | c)."""
    return mean_probability(scores)


@calibration("domain", prompts="domain")
def domain(scores: Float64[np.ndarray, "prompt label"]) -> Float64[np.ndarray, " label"]:
    """Domain-context calibration (Fei et al. 2023): log of the mean over 20 bags of train words of p(y | bag)."""
    return mean_probability(scores)


@calibration("pmi_dc", prompts="domain_prompt")
def pmi_dc(scores: Float64[np.ndarray, "prompt label"]) -> Float64[np.ndarray, " label"]:
    """Domain-conditional PMI (Holtzman et al. 2021): s(domain prompt, y), the score without the row."""
    first: Float64[np.ndarray, " label"] = scores[0]
    return first


@calibration("support", prompts="support", level="word")
def support(scores: Float64[np.ndarray, "prompt word"]) -> Float64[np.ndarray, " word"]:
    """Support calibration (KPT, Hu et al. 2022): mean log p(word | x), over all label words, of 200 train rows.

    A word that is likely after every row loses that much before the words of a label are pooled.
    """
    mean: Float64[np.ndarray, " word"] = log_softmax(scores, axis=1).mean(axis=0)
    return mean


@calibration("batch", prompts=ROWS)
def batch(scores: Float64[np.ndarray, "prompt label"]) -> Float64[np.ndarray, " label"]:
    """Batch calibration (Zhou et al. 2024): log of the mean over the scored rows of p(y | x); transductive."""
    return mean_probability(scores)


def _normalized(scores: Float64[np.ndarray, "row label"]) -> Float64[np.ndarray, "row label"]:
    log_probabilities: Float64[np.ndarray, "row label"] = log_softmax(scores, axis=1)
    return log_probabilities
