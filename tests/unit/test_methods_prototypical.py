"""Class prototypes against a loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from promptlab.errors import ModelError, UsageError
from promptlab.methods.base import Context, Setting
from promptlab.methods.features import last_states
from promptlab.methods.prototypical import Prototypical, similarities
from tests.contract.test_methods import UNSEEN, make_shots, prompts_of

NAMES = ("bad", "good", "fine")
LABELS = np.array([0, 1, 2, 1, 0, 1, 2, 0])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_answers_are_those_of_a_loop(backends: dict[str, Any], metric: str) -> None:
    """Mean state of a label, likeness to it centred on the mean of the means, softmax at a temperature."""
    backend, context = backends["bert"], Context(backends["bert"], NAMES, None, seed=0)
    shots, unseen = replace(make_shots(backend), labels=LABELS), prompts_of(backend, UNSEEN)
    states, rows = (last_states(backend, prompts, "mask") for prompts in (shots.prompts, unseen))
    means = [sum(states[i] for i in range(8) if LABELS[i] == label) / (LABELS == label).sum() for label in range(3)]
    middle = sum(means) / 3
    fitted = Prototypical().fit(shots, Setting(options={"metric": metric, "temperature": 0.2}), context)
    found = fitted.backend.score(unseen, np.arange(3)).log_probs
    for row, state in enumerate(rows):
        near = []
        for mean in means:
            one, other = state - middle, mean - middle
            if metric == "cosine":
                near.append(float(one @ other) / float(np.sqrt(one @ one) * np.sqrt(other @ other)))
            else:
                near.append(-float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True))) / 32)
        weights = np.exp(np.array(near) / 0.2)
        assert np.allclose(np.log(weights / weights.sum()), found[row], atol=1e-5)
    assert (3 * 32, 0, 8) == (fitted.record.num_parameters, fitted.record.steps, fitted.record.example_passes)


def test_centring_moves_no_distance_and_a_state_in_the_middle_is_near_to_none() -> None:
    """Two prototypes at 1 and 3: a state at 2 has no direction from the middle, and the same distance to both."""
    prototypes = np.array([[1.0, 0.0], [3.0, 0.0]])
    assert [[-4.5, -0.5]] == similarities(np.array([[4.0, 0.0]]), prototypes, "euclidean").tolist()
    assert [[-1.0, 1.0]] == similarities(np.array([[4.0, 0.0]]), prototypes, "cosine").tolist()
    assert [[0.0, 0.0]] == similarities(np.array([[2.0, 0.0]]), prototypes, "cosine").tolist()


def test_one_label_cannot_be_missing_and_metrics_have_names(backends: dict[str, Any]) -> None:
    """What cannot be fitted is refused in one sentence."""
    shots, context = make_shots(backends["bert"]), Context(backends["bert"], NAMES, None, seed=0)
    with pytest.raises(ModelError, match="there is no shot of 'fine'"):
        Prototypical().fit(shots, Prototypical().grid()[0], context)
    setting = Setting(options={"metric": "dot", "temperature": 1.0})
    with pytest.raises(UsageError, match=r"metric 'dot' is unknown. Known: cosine, euclidean"):
        Prototypical().fit(shots, setting, replace(context, labels=NAMES[:2]))
