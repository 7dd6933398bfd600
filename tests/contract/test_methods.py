"""What every registered method promises, on every tiny architecture that it works with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.methods.base import Context, LabelledPrompts, Method, Setting, Words
from promptlab.methods.choosing import Showing
from promptlab.methods.settings import amended_grid
from promptlab.registry import METHODS
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Example
from tests.tiny_models import FAMILIES

LABELS = ("bad", "good")
TEXTS = {
    "bad": ["a dull film", "it was a bad day", "the food was bad and the room was bad", "no fun at all"],
    "good": ["a fine film", "it was a good day", "the food was good and the room was good", "fun for all"],
}
UNSEEN = ["a film", "the day was fun", "the food and the room", "all of it was the same"]
METHODS_OF_ALL = METHODS.names()
UNLIKE = ("bert", "modernbert")  # norms after and before, maps apart and fused, biases and none
OTHERS = tuple(kind for kind in FAMILIES if kind not in (*UNLIKE, "bert_chinese"))
EACH_KIND = (*UNLIKE, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS))


@pytest.fixture(scope="module")
def words_of() -> dict[str, tuple[str, str]]:
    """A word a label that is one token in every vocabulary, by kind; filled by `context`."""
    return {}


def prompts_of(backend: Any, texts: list[str], template: str = "{{ text }} It was {{ mask }}.") -> list[EncodedPrompt]:
    """Encoded prompts of some texts."""
    compiled = compile_template(Template.from_text(template))
    rendered = [render(compiled, Example(str(place), place, {"text": text})) for place, text in enumerate(texts)]
    encoded = backend.encoder(None).encode(rendered)
    assert all(isinstance(prompt, EncodedPrompt) for prompt in encoded)
    return list(encoded)


def make_shots(backend: Any, template: str = "{{ text }} It was {{ mask }}.") -> LabelledPrompts:
    """Eight labelled prompts."""
    texts = [text for label in LABELS for text in TEXTS[label]]
    labels = np.repeat(np.arange(2), 4)
    return LabelledPrompts(tuple(prompts_of(backend, texts, template)), labels)


def make_context(backend: Any, seed: int = 0) -> Context:
    """The label words, whatever single tokens the tiny vocabulary has for them."""
    verbalizer = Verbalizer.from_labels({"bad": "bad", "good": "good"})
    compiled = compile_template(Template.from_text("{{ text }} It was {{ mask }}."))
    prompt = render(compiled, Example("0", 0, {"text": "a film"}))
    found = find_word_ids(backend.encoder(None), verbalizer.words, [slot_contexts(prompt)])
    assert all(not isinstance(one, str) for one in found.values()), found
    return Context(backend, LABELS, Words.of(verbalizer, LABELS, found), seed)


def given(method: Method, context: Context) -> Context:
    """The context that a method gets: without words where it says that it looks at none."""
    return context if method.uses_words else replace(context, words=None)


@pytest.fixture(params=EACH_KIND)
def kind(request: Any) -> str:
    """An architecture; the ones that only repeat what others show are for the slow run."""
    return str(request.param)


@pytest.fixture(params=METHODS_OF_ALL)
def pair(request: Any, kind: str, backends: dict[str, Any]) -> tuple[Method, Any]:
    """A method and a backend that it works with."""
    name = request.param
    method, backend = METHODS.get(name)(), backends[kind]
    reason = method.refusal(backend)
    if reason is not None:
        pytest.skip(reason)
    return method, backend


def shortened(method: Method, steps: int = 6) -> Setting:
    """The default setting of a method, of a few steps."""
    return replace(method.grid()[0], steps=steps, batch_size=4, dropout=False, schedule="constant", warm_up=0.0)


def asked(method: Method, context: Context) -> np.ndarray:
    """What a fitted backend is asked for."""
    return context.label_words.token_ids if method.answers == "mask" else np.arange(len(LABELS))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are not shared between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_fit_changes_the_answers_and_detaching_takes_it_back(pair: tuple[Method, Any]) -> None:
    """The loss falls, the answers are others, and the model is afterwards what it was, to the bit."""
    method, backend = pair
    context, shots = make_context(backend), make_shots(backend)
    unseen = prompts_of(backend, UNSEEN)
    before = backend.score(unseen, context.label_words.token_ids)
    weights = {name: value.clone() for name, value in backend.model.state_dict().items()}
    with method.fit(shots, shortened(method, steps=20), given(method, context)) as fitted:
        after = fitted.backend.score(unseen, asked(method, context))
        assert fitted.record.num_parameters >= 0  # some methods train nothing
        if fitted.record.losses:
            assert fitted.record.losses[-1] < fitted.record.losses[0]
        if method.answers == "mask":
            assert np.abs(after.log_probs - before.log_probs).max() > 1e-4
        else:
            assert np.allclose(np.exp(after.log_probs).sum(axis=1), 1, atol=1e-5)
    again = backend.score(unseen, context.label_words.token_ids)
    assert np.array_equal(before.log_probs, again.log_probs)
    assert all(torch.equal(weights[name], value) for name, value in backend.model.state_dict().items())


def test_same_seed_gives_the_same_numbers(pair: tuple[Method, Any]) -> None:
    """A fit is decided by its shots, setting and seed; what ran before it does not matter."""
    method, backend = pair
    context, shots = make_context(backend), make_shots(backend)
    unseen, found = prompts_of(backend, UNSEEN), []
    for _ in range(2):
        with method.fit(shots, shortened(method), given(method, context)) as fitted:
            found.append(fitted.backend.score(unseen, asked(method, context)).log_probs)
        torch.rand(3)
    assert np.array_equal(found[0], found[1])


def test_answers_are_the_same_alone_and_in_a_batch(pair: tuple[Method, Any]) -> None:
    """Padding beside a prompt changes nothing of what was fitted."""
    method, backend = pair
    context, shots = make_context(backend), make_shots(backend)
    unseen = prompts_of(backend, UNSEEN)
    with method.fit(shots, shortened(method), given(method, context)) as fitted:
        together = fitted.backend.score(unseen, asked(method, context)).log_probs
        alone = [fitted.backend.score([prompt], asked(method, context)).log_probs for prompt in unseen]
    assert np.allclose(together, np.concatenate(alone), atol=2e-5)


def test_loaded_tensors_answer_as_the_fit_did(pair: tuple[Method, Any]) -> None:
    """What was fitted is all in its tensors."""
    method, backend = pair
    context, shots, setting = make_context(backend), make_shots(backend), shortened(method)
    unseen = prompts_of(backend, UNSEEN)
    with method.fit(shots, setting, given(method, context)) as fitted:
        tensors = {name: tensor.clone() for name, tensor in fitted.tensors.items()}
        expected = fitted.backend.score(unseen, asked(method, context)).log_probs
    with method.load(tensors, setting, given(method, context)) as loaded:
        assert np.allclose(expected, loaded.backend.score(unseen, asked(method, context)).log_probs, atol=1e-6)


def test_tensors_of_another_shape_are_refused(pair: tuple[Method, Any]) -> None:
    """A tensor that does not fit is named, and the model stays as it was."""
    from promptlab.errors import PromptlabError

    method, backend = pair
    context, shots, setting = make_context(backend), make_shots(backend), shortened(method, steps=1)
    with method.fit(shots, setting, given(method, context)) as fitted:
        tensors = {name: tensor.clone() for name, tensor in fitted.tensors.items()}
    before = backend.score(prompts_of(backend, UNSEEN), context.label_words.token_ids).log_probs
    name = next(iter(tensors))
    with pytest.raises(PromptlabError, match="do not fit the model"):
        method.load({**tensors, name: torch.zeros(3, 5, 7)}, setting, given(method, context))
    after = backend.score(prompts_of(backend, UNSEEN), context.label_words.token_ids).log_probs
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", METHODS_OF_ALL)
def test_grid_starts_with_the_default_and_has_distinct_settings(name: str) -> None:
    """A search tries each setting once."""
    grid = METHODS.get(name)().grid()
    described = [str(setting.described()) for setting in grid]
    assert grid
    assert len(described) == len(set(described))


@pytest.mark.parametrize("name", METHODS_OF_ALL)
def test_every_option_can_be_said(name: str, backends: dict[str, Any]) -> None:
    """`--setting` takes each option that the docstring names, as its default is; said, it changes no number."""
    method = METHODS.get(name)()
    context, shots = make_context(backends["bert"]), make_shots(backends["bert"])
    plain = replace(method.grid()[0], options={}, steps=2)
    told = {key: "+".join(value) if isinstance(value, tuple) else str(value) for key, value in method.options.items()}
    said = amended_grid(method, {f"{name}.{key}": value for key, value in told.items()})
    assert all(dict(method.options) == one.options for one in said)
    docstring = str(method.__doc__) + (str(Showing.__doc__) if name == "demonstrations" else "")
    assert all(f"`{key}`" in docstring for key in method.options)
    assert all(set(one.options) <= set(method.options) for one in method.grid())
    found = []
    for setting in (plain, replace(plain, options=said[0].options)):
        with method.fit(shots, setting, given(method, context)) as fitted:
            found.append(fitted.backend.score(shots.prompts, asked(method, context)).log_probs)
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("name", METHODS_OF_ALL)
def test_registered_name_is_the_name_of_the_class(name: str) -> None:
    """Files, registry and reports call a method the same."""
    assert METHODS.get(name).name == name
