"""The preflight of every method on every tiny architecture, and the faults that it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError
from promptlab.fit_auditing import preflight_method
from promptlab.methods.attaching import AttachedBackend
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.lora import Lora
from promptlab.methods.prompt_fine_tune import PromptFineTune
from promptlab.types import EncodedPrompt, MaskScores
from tests.contract.test_methods import (  # noqa: F401  # fixtures
    given,
    kind,
    make_context,
    make_shots,
    one_thread,
    pair,
)


def test_every_method_passes_where_it_is_not_refused(pair: tuple[Method, Any]) -> None:  # noqa: F811
    """Gradients, effect, masks and batches are right for each setting that is searched, and the model is as it was."""
    method, backend = pair
    context, shots = make_context(backend), make_shots(backend)
    weights = {name: value.clone() for name, value in backend.model.state_dict().items()}
    for setting in method.grid():
        preflight_method(method, shots, setting, given(method, context))
    assert all(torch.equal(weights[name], value) for name, value in backend.model.state_dict().items())


Change = Callable[[Fitted], Fitted]


class Broken(Method):
    """A method whose fit comes out changed."""

    name = "broken"

    def __init__(self, inner: Method, change: Change) -> None:
        self._inner, self._change = inner, change

    def grid(self) -> tuple[Setting, ...]:
        """As the method itself."""
        return self._inner.grid()

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """What the method hands back, changed."""
        return self._change(self._inner.fit(shots, setting, context))

    def load(self, tensors: Any, setting: Setting, context: Context) -> Fitted:
        """Never asked for."""
        raise NotImplementedError


class Wrapped(AttachedBackend):
    """A backend that answers otherwise than the one inside."""

    def __init__(self, inner: Any, change: Callable[[MaskScores], MaskScores]) -> None:
        super().__init__(inner, lambda prompt: prompt)
        self._change = change

    def score(self, prompts: Sequence[EncodedPrompt], token_ids: Any, *, keep_states: bool = False) -> MaskScores:
        """The scores, changed."""
        return self._change(super().score(prompts, token_ids, keep_states=keep_states))


def shift(scores: MaskScores) -> MaskScores:
    """Scores of a forward that is not the model's."""
    return replace(scores, log_probs=scores.log_probs - np.float32(0.1))


def by_batch(scores: MaskScores) -> MaskScores:
    """Scores that depend on how many there are."""
    return replace(scores, log_probs=scores.log_probs - np.float32(0.1 * len(scores.keys)))


def without_effect(fitted: Fitted) -> Fitted:
    """What was fitted is taken out at once."""
    fitted.detach()
    return replace(fitted, detach=lambda: None)


def with_moved_masks(fitted: Fitted) -> Fitted:
    """Prompts with a token more before the mask than the places that are read say."""
    moved = lambda one: replace(one, input_ids=np.roll(one.input_ids, 1))  # noqa: E731
    return replace(fitted, backend=AttachedBackend(fitted.backend, moved))


def with_silence(fitted: Fitted) -> Fitted:
    """A tensor outside of the graph."""
    return replace(fitted, record=replace(fitted.record, facts={"without_gradient": ["a.weight", "b.weight"]}))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without_effect, "2 steps leave every answer as it was"),
        (with_moved_masks, "masks are not where they are read"),
        (with_silence, "2 of its tensors get no gradient, the first is 'a.weight'"),
        (lambda one: replace(one, backend=Wrapped(one.backend, shift)), "from those of the model's own forward by 1.0"),
        (lambda one: replace(one, backend=Wrapped(one.backend, by_batch)), "alone and in a batch differ by 7.0"),
    ],
)
def test_faults_are_found(backends: dict[str, Any], change: Change, found: str) -> None:
    """A method that is wired wrongly is refused with the fault, and the model is as it was."""
    backend = backends["bert"]
    context, shots = make_context(backend), make_shots(backend)
    before = backend.score(shots.prompts, context.label_words.token_ids).log_probs
    with pytest.raises(ModelError, match="method 'broken' fails the preflight on model") as raised:
        preflight_method(Broken(Lora(), change), shots, Lora().grid()[0], context)
    assert found in str(raised.value)
    assert "--skip-preflight fits it all the same" in str(raised.value)
    assert np.array_equal(before, backend.score(shots.prompts, context.label_words.token_ids).log_probs)


def test_parameters_without_gradient_are_named(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that the loss does not depend on is found in a real fit."""
    backend = backends["bert"]
    model = backend.model
    monkeypatch.setitem(model._parameters, "unused", torch.nn.Parameter(torch.ones(2, 2)))
    with pytest.raises(ModelError, match="1 of its tensors get no gradient, the first is 'unused'"):
        preflight_method(PromptFineTune(), make_shots(backend), PromptFineTune().grid()[0], make_context(backend))


def test_planned_passes_are_those_that_a_fit_takes(pair: tuple[Method, Any]) -> None:  # noqa: F811
    """A plan counts what a fit will count."""
    method, backend = pair
    context, shots = make_context(backend), make_shots(backend).take([0, 1, 2, 4, 5, 6, 7])
    for setting in method.grid():
        few = replace(setting, steps=min(setting.steps, 5), batch_size=3, accumulate=2)
        with method.fit(shots, few, given(method, context)) as fitted:
            assert fitted.record.example_passes == method.example_passes(len(shots), few)
