"""Calibrations by hand, and what every one of them keeps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from promptlab.calibration import ROWS, Calibration, calibrate, calibration, find_calibration
from promptlab.calibration_prompts import NAMES
from promptlab.errors import UsageError
from promptlab.registry import CALIBRATIONS
from promptlab.specs.verbalizer import Pool, Verbalizer
from promptlab.verbalizing import pool_labels

LABELS = ("negative", "positive")
SINGLE = {"negative": "bad", "positive": "good"}
SEVERAL = {"negative": ["bad", "awful"], "positive": "good"}
SCORES = np.log([[0.06, 0.03, 0.04], [0.1, 0.2, 0.5], [0.001, 0.002, 0.004]])
PRIOR = np.log([[0.8, 0.1, 0.2], [0.3, 0.3, 0.2], [0.05, 0.1, 0.2]])
UNIFORM = np.zeros((3, 3))
POOLS: tuple[Pool, ...] = ("mean_logprob", "sum_prob", "max")
every_calibration = pytest.mark.parametrize("name", CALIBRATIONS.names())
every_pool = pytest.mark.parametrize("rule", POOLS)


def pooling(words: dict[str, Any], rule: Pool = "mean_logprob") -> Any:
    """Word scores -> label scores."""
    verbalizer = Verbalizer.from_labels(words, pool=rule, name="words")
    return functools.partial(pool_labels, verbalizer=verbalizer, labels=LABELS)


def probabilities(name: str, words: Any, prior: Any, pool: Any = None) -> np.ndarray[Any, Any]:
    """p(y | x) of rows, from probabilities of words at their masks and at the prompts of the calibration."""
    rows, prompts = (np.log(np.array(values, dtype=np.float64)) for values in (words, prior))
    found: np.ndarray[Any, Any] = np.exp(calibrate(find_calibration(name), rows, prompts, pool or pooling(SINGLE)))
    return found


def calibrated(name: str, words: Any, prior: Any, rule: Pool = "mean_logprob") -> np.ndarray[Any, Any]:
    """Log p(y | x) of log word scores, with two words for the first label and one for the second."""
    return calibrate(find_calibration(name), words, prior, pooling(SEVERAL, rule))


def test_there_are_six() -> None:
    """The estimators that are known, where each takes its prior from and on which level it is subtracted."""
    found = {name: find_calibration(name) for name in CALIBRATIONS.names()}
    assert {name: (one.prompts, one.level) for name, one in found.items()} == {
        "none": (None, "label"),
        "contextual": ("content_free", "label"),
        "domain": ("domain", "label"),
        "pmi_dc": ("domain_prompt", "label"),
        "support": ("support", "word"),
        "batch": (ROWS, "label"),
    }


def test_none_by_hand() -> None:
    """Without calibration the scores become probabilities over the labels: 0.06 : 0.04 is 3/5 and 2/5."""
    assert np.array([[3 / 5, 2 / 5]]) == pytest.approx(probabilities("none", [[0.06, 0.04]], [[0.9, 0.1]]), abs=1e-12)


def test_contextual_by_hand() -> None:
    """Contextual calibration, worked out with fractions.

    Label scores of the three content-free texts are log (0.08, 0.02), log (0.3, 0.2) and log (0.007, 0.003); over the
    labels that is p = (0.8, 0.2), (0.6, 0.4) and (0.7, 0.3), and the prior is their mean (0.7, 0.3).
    A row with log (0.06, 0.04) has p = (0.6, 0.4). Divided by the prior that is 6/7 : 4/3 = 9 : 14, so the calibrated
    probabilities are 9/23 and 14/23: the second label, which the prompt itself disfavours, wins.
    A row at the prior becomes 1/2 : 1/2.
    """
    content_free = [[0.08, 0.02], [0.3, 0.2], [0.007, 0.003]]
    prior = find_calibration("contextual").log_prior(np.log(content_free))
    assert np.array([0.7, 0.3]) == pytest.approx(np.exp(prior), abs=1e-12)
    found = probabilities("contextual", [[0.06, 0.04], [0.07, 0.03]], content_free)
    assert np.array([[9 / 23, 14 / 23], [1 / 2, 1 / 2]]) == pytest.approx(found, abs=1e-12)


def test_domain_by_hand() -> None:
    """Domain-context calibration, of two bags of words.

    Label scores of the bags are log (0.04, 0.04) and log (0.02, 0.06); over the labels that is (1/2, 1/2) and
    (1/4, 3/4), and the prior is their mean (3/8, 5/8).
    A row with p = (3/5, 2/5) is divided by it: 8/5 : 16/25 = 5 : 2, so 5/7 and 2/7.
    """
    found = probabilities("domain", [[0.06, 0.04]], [[0.04, 0.04], [0.02, 0.06]])
    assert np.array([[5 / 7, 2 / 7]]) == pytest.approx(found, abs=1e-12)


def test_pmi_dc_by_hand() -> None:
    """Domain-conditional PMI: p(word | row) / p(word | domain prompt).

    The domain prompt gives the words 0.1 and 0.4. A row that gives them 0.06 and 0.04 has the quotients 3/5 and 1/10,
    which is 6 : 1, so 6/7 and 1/7.
    """
    assert np.array([[6 / 7, 1 / 7]]) == pytest.approx(probabilities("pmi_dc", [[0.06, 0.04]], [[0.1, 0.4]]), abs=1e-12)


def test_support_by_hand() -> None:
    """Support calibration (KPT): a prior a word, subtracted before the words of a label are pooled.

    Two support rows give bad, awful and good (0.01, 0.04, 0.04) and (0.08, 0.02, 0.08). Normalised over the three
    words that is (1/9, 4/9, 4/9) and (4/9, 1/9, 4/9). The mean of the logarithms is that of the geometric means
    (2/9, 2/9, 4/9).
    A row gives them (0.02, 0.08, 0.04). Divided word by word that is 0.09, 0.36 and 0.09.
    The mean of log-probabilities pools bad and awful to sqrt(0.09 * 0.36) = 0.18 against 0.09: 2/3 and 1/3.
    Their sum is 0.45 against 0.09: 5/6 and 1/6. Had the prior been pooled as well and subtracted then, the sums
    0.10 : 0.04 and the priors 4/9 : 4/9 would have given 5/7.
    """
    support_rows = [[0.01, 0.04, 0.04], [0.08, 0.02, 0.08]]
    prior = np.exp(find_calibration("support").log_prior(np.log(support_rows)))
    assert np.array([2 / 9, 2 / 9, 4 / 9]) == pytest.approx(prior, abs=1e-12)
    by_mean = probabilities("support", [[0.02, 0.08, 0.04]], support_rows, pooling(SEVERAL))
    by_sum = probabilities("support", [[0.02, 0.08, 0.04]], support_rows, pooling(SEVERAL, "sum_prob"))
    assert np.array([[2 / 3, 1 / 3]]) == pytest.approx(by_mean, abs=1e-12)
    assert np.array([[5 / 6, 1 / 6]]) == pytest.approx(by_sum, abs=1e-12)


def test_batch_by_hand() -> None:
    """Batch calibration: the prior is the mean over the scored rows themselves.

    Two rows have p = (4/5, 1/5) and (3/5, 2/5); the mean is (7/10, 3/10).
    The first divided by it is 8/7 : 2/3 = 12 : 7, the second 6/7 : 4/3 = 9 : 14.
    """
    rows = [[0.08, 0.02], [0.06, 0.04]]
    found = probabilities("batch", rows, rows)
    assert np.array([[12 / 19, 7 / 19], [9 / 23, 14 / 23]]) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("name", ["contextual", "domain", "batch"])
@every_pool
def test_a_mean_of_probabilities_is_a_plain_loop(name: str, rule: Pool) -> None:
    """The prior is the mean over prompts of the softmax over labels, whatever pools the words."""
    pool = pooling(SEVERAL, rule)
    scores, prior = np.exp(pool(SCORES)), np.exp(pool(PRIOR))
    mean = [sum(row[label] / sum(row) for row in prior) / len(prior) for label in range(2)]
    divided = [[row[label] / mean[label] for label in range(2)] for row in scores]
    expected = np.array([[value / sum(row) for value in row] for row in divided])
    assert expected == pytest.approx(np.exp(calibrated(name, SCORES, PRIOR, rule)), abs=1e-12)


@every_calibration
@every_pool
def test_a_uniform_prior_changes_nothing(name: str, rule: Pool) -> None:
    """Where the prompt favours no label and no word there is nothing to correct."""
    # A label of two words has twice the sum: there the labels are made even, not the words.
    even = UNIFORM - [np.log(2), np.log(2), 0] if rule == "sum_prob" and name != "support" else UNIFORM
    plain = log_softmax(pooling(SEVERAL, rule)(SCORES), axis=1)
    assert plain == pytest.approx(calibrated(name, SCORES, even, rule), abs=1e-12)


@every_calibration
@every_pool
def test_only_differences_count(name: str, rule: Pool) -> None:
    """A constant on every word's score, of a row or of a prompt, changes no probability."""
    known = calibrated(name, SCORES, PRIOR, rule)
    moved = calibrated(name, SCORES - 7, PRIOR + np.array([[3.0], [-5.0], [0.5]]), rule)
    assert known == pytest.approx(moved, abs=1e-12)
    assert np.ones(3) == pytest.approx(np.exp(known).sum(axis=1))


@every_calibration
def test_unscored_rows_stay_unknown(name: str) -> None:
    """A row of NaN is NaN afterwards and does not touch the others."""
    found = calibrated(name, np.vstack([SCORES, np.full(3, np.nan)]), PRIOR)
    assert np.isnan(found[3]).all()
    assert calibrated(name, SCORES, PRIOR) == pytest.approx(found[:3], abs=1e-12)


@every_calibration
def test_rows_are_calibrated_one_by_one(name: str) -> None:
    """Given its prior, a row has the same numbers alone and among others, in any order."""
    whole = calibrated(name, SCORES, PRIOR)
    alone = np.vstack([calibrated(name, SCORES[[row]], PRIOR) for row in (2, 0, 1)])
    assert whole[[2, 0, 1]] == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in CALIBRATIONS.names() if name != "pmi_dc"])
def test_the_order_of_prompts_does_not_matter(name: str) -> None:
    """Content-free texts, bags and support rows are sets; a domain prompt is one."""
    assert calibrated(name, SCORES, PRIOR) == pytest.approx(calibrated(name, SCORES, PRIOR[::-1]), abs=1e-12)


@every_calibration
def test_a_calibration_says_what_it_is(name: str) -> None:
    """It has its registered name, a sentence for listings, prompts that can be made, and a prior a label or word."""
    known = find_calibration(name)
    assert name == known.name
    assert known.__doc__ and known.__doc__.partition("\n")[0].endswith(".")
    assert known.prompts in (None, ROWS, *NAMES)
    assert known.level in ("label", "word")
    assert (3,) == known.log_prior(PRIOR).shape


def test_one_decorated_function_is_a_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered by the decorator is found with its prompts and level, and its function stays a function."""
    monkeypatch.setattr(CALIBRATIONS, "_targets", dict(CALIBRATIONS._targets))

    @calibration("half", prompts="support", level="word")
    def half(scores: Any) -> Any:
        """Half of the first prompt."""
        return scores[0] / 2

    found = find_calibration("half")
    assert ("half", "support", "word", half) == (found.name, found.prompts, found.level, found.log_prior)
    assert np.log([[0.2, 0.8]]) == pytest.approx(
        calibrate(found, np.log([[0.2, 0.4]]), np.log([[1.0, 0.25]]), pooling(SINGLE)), abs=1e-12
    )


def test_a_function_alone_reads_the_content_free_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of label scores that another package registers under a name needs to say nothing else."""
    monkeypatch.setattr(CALIBRATIONS, "_targets", dict(CALIBRATIONS._targets))
    CALIBRATIONS.register("first_text", lambda scores: scores[0])
    found = find_calibration("first_text")
    assert isinstance(found, Calibration)
    assert ("first_text", "content_free", "label") == (found.name, found.prompts, found.level)


def test_an_unknown_calibration_is_explained() -> None:
    """A mistyped name gets the nearest one."""
    with pytest.raises(UsageError, match=r"calibration 'contextul' is unknown\. Did you mean 'contextual'\?"):
        find_calibration("contextul")
