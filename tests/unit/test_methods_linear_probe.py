"""The linear probe against scikit-learn's own answers."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from promptlab.errors import ModelError, UsageError
from promptlab.methods.base import Context, LabelledPrompts, Setting
from promptlab.methods.features import last_states
from promptlab.methods.linear_probe import LinearProbe
from tests.contract.test_methods import UNSEEN, make_shots, prompts_of

NAMES = ("bad", "good", "fine")


def three_labels(backend: Any, num_labels: int) -> tuple[LabelledPrompts, Context]:
    """The eight shots under two or three labels, and a context without words."""
    shots = replace(make_shots(backend), labels=np.array([0, 1, 2, 1, 0, 1, 2, 0]) % num_labels)
    return shots, Context(backend, NAMES[:num_labels], None, seed=0)


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("state", ["mask", "first", "mean"])
def test_answers_are_those_of_scikit_learn(backends: dict[str, Any], num_labels: int, state: str) -> None:
    """A pipeline of a scaler and a logistic regression gives the same log-probabilities."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    backend, setting = backends["bert"], Setting(options={"state": state, "C": 0.5})
    shots, context = three_labels(backend, num_labels)
    unseen = prompts_of(backend, UNSEEN)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))
    pipeline.fit(last_states(backend, shots.prompts, state), shots.labels)
    expected = pipeline.predict_log_proba(last_states(backend, unseen, state))
    fitted = LinearProbe().fit(shots, setting, context)
    assert np.allclose(expected, fitted.backend.score(unseen, np.arange(num_labels)).log_probs, atol=1e-5)


def test_counts_are_weights_and_biases_and_one_pass_of_each_shot(backends: dict[str, Any]) -> None:
    """Three labels of 32 weights and a bias; mean and scale are no parameters."""
    shots, context = three_labels(backends["bert"], 3)
    record = LinearProbe().fit(shots, LinearProbe().grid()[0], context).record
    assert 3 * 32 + 3 == record.num_parameters
    assert 8 == record.example_passes
    assert record.steps > 0


def test_loading_needs_no_scikit_learn(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors alone answer."""
    shots, context = three_labels(backends["bert"], 3)
    setting = LinearProbe().grid()[0]
    tensors = LinearProbe().fit(shots, setting, context).tensors
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    LinearProbe().load(tensors, setting, context).backend.score(prompts_of(backends["bert"], UNSEEN), np.arange(3))


def test_a_feature_that_never_varies_weighs_nothing(backends: dict[str, Any]) -> None:
    """Shots that are all the same text have no spread, and the answers are numbers all the same."""
    backend = backends["bert"]
    prompts = tuple(prompts_of(backend, ["a film"] * 4))
    shots = LabelledPrompts(prompts, np.array([0, 1, 0, 1]))
    fitted = LinearProbe().fit(shots, LinearProbe().grid()[0], Context(backend, NAMES[:2], None, seed=0))
    assert np.isfinite(fitted.backend.score(prompts_of(backend, UNSEEN), np.arange(2)).log_probs).all()


def test_what_cannot_be_fitted_is_refused(backends: dict[str, Any]) -> None:
    """An unknown state, and shots that lack a label."""
    shots, context = three_labels(backends["bert"], 2)
    with pytest.raises(UsageError, match="method 'linear_probe': state 'cls' is unknown"):
        LinearProbe().fit(shots, Setting(options={"state": "cls", "C": 1.0}), context)
    with pytest.raises(ModelError, match="there is no shot of 'fine'"):
        LinearProbe().fit(shots, LinearProbe().grid()[0], replace(context, labels=NAMES))
