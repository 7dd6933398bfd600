"""Soft prompts: the hard prompt re-created, the vectors, their starts and their places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError, UsageError
from promptlab.methods.base import Setting
from promptlab.methods.soft_prompt import SoftPrompt
from promptlab.methods.soft_tokens import SoftTokens, start_vectors
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.types import Example, Role
from tests.contract.test_methods import UNSEEN, make_context, make_shots, prompts_of
from tests.tiny_models import FAMILIES

ARCHITECTURES = [kind for kind in FAMILIES if kind != "bert_chinese"]
STILL = Setting(learning_rate=0.0, steps=1, options={"start": "words", "reparametrisation": "none"})
OPENED = "{{ text }} {{ soft('It was') }} {{ mask }}."


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("template", ["{{ text }} It was {{ mask }}.", OPENED])
@pytest.mark.parametrize("reparametrisation", ["none", "mlp", "lstm"])
def test_the_hard_prompt_as_soft_tokens_scores_as_the_hard_prompt(
    backends: dict[str, Any], kind: str, template: str, reparametrisation: str
) -> None:
    """Started from its own words and not moved, whatever gives the vectors."""
    backend = backends[kind]
    context, unseen = make_context(backend), prompts_of(backend, UNSEEN, template)
    hard = backend.score(prompts_of(backend, UNSEEN, template), context.label_words.token_ids)
    setting = replace(STILL, options={"start": "words", "reparametrisation": reparametrisation})
    with SoftPrompt().fit(make_shots(backend, template), setting, context) as fitted:
        soft = fitted.backend.score(unseen, context.label_words.token_ids)
    assert np.allclose(hard.log_probs, soft.log_probs, atol=1e-6)
    assert np.allclose(hard.log_normalizers, soft.log_normalizers, atol=1e-5)
    assert hard.keys == soft.keys


def test_vectors_stand_where_the_template_has_them(backends: dict[str, Any]) -> None:
    """A soft token's embedding is its vector, and every other token's its own: an oracle by inputs_embeds."""
    backend = backends["bert"]
    context, template = make_context(backend), "{{ soft(2) }} {{ text }} {{ soft('was') }} {{ mask }}."
    shots, setting = soft_shots(backend, template), replace(STILL, learning_rate=0.1, steps=5)
    with SoftPrompt().fit(shots, setting, context) as fitted:
        vectors = fitted.tensors["vectors"]
        found = fitted.backend.score(shots.prompts[:1], context.label_words.token_ids).log_probs[0]
    prompt, model = shots.prompts[0], backend.model
    embedded = model.get_input_embeddings()(torch.tensor(prompt.input_ids[None].astype(np.int64))).detach().clone()
    embedded[0, np.flatnonzero(prompt.roles == Role.SOFT)] = vectors
    with torch.no_grad():
        logits = model(inputs_embeds=embedded).logits[0, prompt.mask_positions[0]]
    expected = torch.log_softmax(logits, -1)[torch.from_numpy(context.label_words.token_ids)]
    assert 3 == len(vectors)
    assert np.allclose(expected.numpy(), found, atol=1e-5)


def soft_shots(backend: Any, template: str) -> Any:
    """Shots of a template with soft tokens that have no words."""
    shots = make_shots(backend)
    compiled = compile_template(Template.from_text(template))
    texts = ["a fine film"] * len(shots)
    rendered = [render(compiled, Example("0", 0, {"text": text}), is_fitted=True) for text in texts]
    return replace(shots, prompts=tuple(backend.encoder(None).encode(rendered)))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_number_of_soft_tokens_is_that_many(backends: dict[str, Any], kind: str) -> None:
    """They are tokens of their own role, no masks, and never cut."""
    (prompt, *_) = soft_shots(backends[kind], "{{ soft(5) }} {{ text }} {{ mask }}").prompts
    assert 5 == (prompt.roles == Role.SOFT).sum()
    assert 1 == len(prompt.mask_positions) == (prompt.roles == Role.MASK).sum()


@pytest.mark.parametrize("start", ["random", "vocabulary", "label_words"])
def test_vectors_start_from_what_was_asked_for(backends: dict[str, Any], start: str) -> None:
    """Embeddings of words, or noise as wide as the embeddings; by the seed alone."""
    backend = backends["bert"]
    context, tokens = make_context(backend), SoftTokens.find(make_shots(backend, OPENED).prompts)
    first, again = (start_vectors(tokens, start, context) for _ in range(2))
    other = start_vectors(tokens, start, replace(context, seed=1))
    weight = backend.model.get_input_embeddings().weight
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (start == "label_words")
    is_word = [(weight == row).all(dim=1).any().item() for row in first]
    assert ([False] if start == "random" else [True]) * len(first) == is_word


def test_what_the_vectors_came_to_is_described(backends: dict[str, Any]) -> None:
    """An unmoved vector is nearest to its own word, with a cosine of one and no drift."""
    backend = backends["bert"]
    with SoftPrompt().fit(make_shots(backend, OPENED), STILL, make_context(backend)) as fitted:
        described = fitted.record.facts["soft_tokens"]
    assert all(one["drift"] == 0 for one in described)
    assert all(one["nearest"][0][0] == one["word"] for one in described)
    assert all(abs(one["nearest"][0][1] - 1) < 1e-5 for one in described)


def test_words_that_differ_from_row_to_row_are_refused(backends: dict[str, Any]) -> None:
    """A template that draws its own words cannot be soft as a whole; the remedy is named."""
    backend, template = backends["bert"], "{{ text }} {{ ['It was', 'It is a'] | choice }} {{ mask }}."
    shots = make_shots(backend)
    compiled = compile_template(Template.from_text(template))
    rendered = [render(compiled, Example(str(place), place, {"text": "a"})) for place in range(len(shots))]
    shots = replace(shots, prompts=tuple(backend.encoder(None).encode(rendered)))
    with pytest.raises(UsageError, match="not the same tokens in every row, so they cannot be trained: write"):
        SoftPrompt().fit(shots, STILL, make_context(backend))
    with pytest.raises(UsageError, match=r"has no words of its own: write \{\{ soft\(5\) \}\}"):
        SoftTokens.find(prompts_of(backend, UNSEEN, "{{ text }} {{ mask }}"))


def test_unknown_options_are_refused(backends: dict[str, Any]) -> None:
    """With what there is."""
    backend = backends["bert"]
    for key, known in (("start", "words, random, vocabulary, label_words"), ("reparametrisation", "none, mlp, lstm")):
        with pytest.raises(UsageError, match=f"{key} 'odd' is unknown. Known: {known}"):
            SoftPrompt().fit(make_shots(backend), replace(STILL, options={key: "odd"}), make_context(backend))


def test_vectors_of_another_width_are_refused(backends: dict[str, Any]) -> None:
    """The model is told apart by its embeddings."""
    tensors = {"vectors": torch.zeros(2, 3), "ids": torch.zeros(2, dtype=torch.long), "role": torch.tensor(1)}
    with pytest.raises(ModelError, match=r"'vectors' has the shape \(2, 3\) and should have \(2, 32\)"):
        SoftPrompt().load(tensors, STILL, make_context(backends["bert"]))


@pytest.mark.parametrize("reparametrisation", ["mlp", "lstm"])
def test_gradient_reaches_every_part_of_a_reparametrisation(backends: dict[str, Any], reparametrisation: str) -> None:
    """All of it moves once the last layer has left zero."""
    backend = backends["bert"]
    setting = Setting(learning_rate=0.05, steps=4, options={"start": "words", "reparametrisation": reparametrisation})
    context, shots = make_context(backend), make_shots(backend, OPENED)
    from promptlab.methods.reparametrising import Vectors

    made: list[tuple[Any, dict[str, torch.Tensor]]] = []
    plain = Vectors.__init__

    def noted(self: Any, *args: Any) -> None:
        plain(self, *args)
        made.append((self, {name: value.detach().clone() for name, value in self.named_parameters()}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vectors, "__init__", noted)
        SoftPrompt().fit(shots, setting, context).detach()
    ((source, before),) = made
    assert all(not torch.equal(before[name], value) for name, value in source.named_parameters())
