"""The choice of a setting inside the shots."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from promptlab.errors import ModelError
from promptlab.methods.attaching import LabelBackend
from promptlab.methods.base import Answers, Context, FitRecord, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.selecting import choose_setting, split
from promptlab.types import EncodedPrompt

LABELS = np.repeat(np.arange(3), [5, 4, 6])


def shots_of(labels: np.ndarray) -> LabelledPrompts:
    """Prompts that are nothing but a key, which is their place."""
    ids = np.zeros(1, dtype=np.int32)
    prompts = tuple(EncodedPrompt(str(place), ids, ids, ids, (0,)) for place in range(len(labels)))
    return LabelledPrompts(prompts, labels)


class Made(Method):
    """Answers rightly with the share that the learning rate says, and writes down what it was fitted to."""

    name: ClassVar[str] = "made"
    answers: ClassVar[Answers] = "label"
    uses_words: ClassVar[bool] = False

    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.seen = labels, list[tuple[float, list[int]]]()

    def grid(self) -> tuple[Setting, ...]:
        """Three settings."""
        return tuple(Setting(learning_rate=rate) for rate in (0.2, 0.9, 0.5))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """Knows every label, and is sure of itself by the learning rate."""
        if setting.learning_rate == 7:
            raise ModelError("the fit diverged")
        self.seen.append((setting.learning_rate, [int(prompt.key) for prompt in shots.prompts]))

        def predict(prompts: Any) -> np.ndarray:
            gold = self.labels[[int(prompt.key) for prompt in prompts]]
            rest = (1 - setting.learning_rate) / 2
            return np.log(np.where(np.arange(3) == gold[:, None], setting.learning_rate, rest))

        return Fitted(LabelBackend(context.backend, predict), FitRecord(1, 1, len(shots)), {})

    def load(self, tensors: Mapping[str, Any], setting: Setting, context: Context) -> Fitted:
        """Never called."""
        raise AssertionError


CONTEXT = Context(None, ("a", "b", "c"), None, 0)  # type: ignore[arg-type]  # the made method asks no model


@hypothesis_settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=4), st.integers(2, 5), st.integers(0, 5))
def test_cross_validation_holds_out_every_shot_once(counts: list[int], num_folds: int, seed: int) -> None:
    """Fitted and held-out shots are apart, every label is fitted to, and no shot is held out twice."""
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = list(split(labels, rule="cross_validation", num_folds=num_folds, seed=seed))
    assert min(num_folds, *counts) == len(parts)
    assert list(range(len(labels))) == sorted(place for _, held in parts for place in held.tolist())
    for seen, held in parts:
        assert not set(seen.tolist()) & set(held.tolist())
        assert set(labels[seen].tolist()) == set(range(len(counts)))


def test_mdl_codes_each_part_by_those_before() -> None:
    """The first part is fitted to and never coded."""
    parts = list(split(LABELS, rule="mdl", num_folds=4, seed=0))
    assert 3 == len(parts)
    for (seen, held), (more, _) in itertools.pairwise(parts):
        assert set(more.tolist()) == set(seen.tolist()) | set(held.tolist())


@pytest.mark.parametrize("labels", [np.array([0, 1]), np.array([0, 0, 1])])
def test_one_shot_of_a_label_leaves_nothing_to_hold_out(labels: np.ndarray) -> None:
    """The first setting is taken, and the choice says that nothing was searched."""
    method = Made(labels)
    found = choose_setting(method, method.grid(), shots_of(labels), CONTEXT, rule="cross_validation", num_folds=4)
    assert (0, "default", 0, 0) == (found.place, found.rule, found.num_fits, found.example_passes)
    assert [] == method.seen


@pytest.mark.parametrize("rule", ["cross_validation", "mdl"])
def test_the_best_setting_on_held_out_shots_is_taken(rule: str) -> None:
    """By accuracy, and among the right ones by log loss; the log loss is the mean over held-out shots."""
    method = Made(LABELS)
    found = choose_setting(method, method.grid(), shots_of(LABELS), CONTEXT, rule=rule, num_folds=4)
    assert 1 == found.place
    assert np.allclose([-np.log(0.2), -np.log(0.9), -np.log(0.5)], [one.log_loss for one in found.tried])
    assert [0.0, 1.0, 1.0] == [one.accuracy for one in found.tried]
    assert sum(len(places) for _, places in method.seen) == found.example_passes
    assert len(method.seen) == found.num_fits


def test_a_setting_that_diverges_is_never_taken() -> None:
    """It is told with its reason."""
    method = Made(LABELS)
    grid = (Setting(learning_rate=7), Setting(learning_rate=0.4))
    found = choose_setting(method, grid, shots_of(LABELS), CONTEXT, rule="cross_validation", num_folds=2)
    assert 1 == found.place
    assert "the fit diverged" == found.tried[0].fault


def test_the_default_is_taken_unseen_where_that_is_asked_for() -> None:
    """Nothing is fitted."""
    method = Made(LABELS)
    found = choose_setting(method, method.grid(), shots_of(LABELS), CONTEXT, rule="default", num_folds=4)
    assert (0, "default") == (found.place, found.rule)
    assert [] == method.seen
