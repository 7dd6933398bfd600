"""Calibrations by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from promptlab.calibration import CONTENT_FREE_TEXTS, calibrate
from promptlab.errors import UsageError
from promptlab.registry import CALIBRATIONS

SCORES = np.log([[0.06, 0.04], [0.1, 0.9], [0.001, 0.004]])
UNIFORM = np.zeros((3, 2))


def test_content_free_texts_are_those_of_the_paper() -> None:
    """Zhao et al. (2021) average over "N/A", the empty text and a placeholder word."""
    assert CONTENT_FREE_TEXTS == ("N/A", "", "none")


def test_contextual_by_hand() -> None:
    """Contextual calibration, worked out with fractions.

    Label scores of the three content-free texts are log (0.08, 0.02), log (0.3, 0.2) and log (0.007, 0.003); over the
    labels that is p = (0.8, 0.2), (0.6, 0.4) and (0.7, 0.3), and the prior is their mean (0.7, 0.3).
    A row with log (0.06, 0.04) has p = (0.6, 0.4). Divided by the prior that is 6/7 : 4/3 = 9 : 14, so the calibrated
    probabilities are 9/23 and 14/23: the second label, which the prompt itself disfavours, wins.
    A row at the prior becomes 1/2 : 1/2.
    """
    content_free = np.log([[0.08, 0.02], [0.3, 0.2], [0.007, 0.003]])
    found = calibrate("contextual", np.log([[0.06, 0.04], [0.07, 0.03]]), content_free)
    assert np.array([[9 / 23, 14 / 23], [1 / 2, 1 / 2]]) == pytest.approx(np.exp(found), abs=1e-12)


def test_none_only_normalises() -> None:
    """Without calibration the scores become log-probabilities over the labels, whatever the content-free scores."""
    assert log_softmax(SCORES, axis=1) == pytest.approx(calibrate("none", SCORES, np.log([[0.9, 0.1]])), abs=1e-12)


@pytest.mark.parametrize("name", CALIBRATIONS.names())
def test_a_uniform_prior_changes_nothing(name: str) -> None:
    """Where the prompt favours no label there is nothing to correct, once or twice."""
    once = calibrate(name, SCORES, UNIFORM)
    assert log_softmax(SCORES, axis=1) == pytest.approx(once, abs=1e-12)
    assert once == pytest.approx(calibrate(name, once, UNIFORM), abs=1e-12)


@pytest.mark.parametrize("name", CALIBRATIONS.names())
def test_only_differences_between_labels_count(name: str) -> None:
    """A constant on every label's score, of the row or of a content-free text, changes no probability."""
    content_free = np.log([[0.8, 0.2], [0.6, 0.4]])
    known = calibrate(name, SCORES, content_free)
    assert known == pytest.approx(calibrate(name, SCORES - 7, content_free + np.array([[3.0], [-5.0]])), abs=1e-12)
    assert np.ones(3) == pytest.approx(np.exp(known).sum(axis=1))


@pytest.mark.parametrize("name", CALIBRATIONS.names())
def test_unscored_rows_stay_unknown(name: str) -> None:
    """A row of NaN is NaN afterwards and does not touch the others."""
    scores = np.vstack([SCORES, [np.nan, np.nan]])
    found = calibrate(name, scores, np.log([[0.8, 0.2]]))
    assert np.isnan(found[3]).all()
    assert calibrate(name, SCORES, np.log([[0.8, 0.2]])) == pytest.approx(found[:3], abs=1e-12)


def test_an_unknown_calibration_is_explained() -> None:
    """A mistyped name gets the nearest one."""
    with pytest.raises(UsageError, match=r"calibration 'contextul' is unknown\. Did you mean 'contextual'\?"):
        calibrate("contextul", SCORES, UNIFORM)
