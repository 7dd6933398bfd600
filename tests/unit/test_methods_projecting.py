"""Soft tokens as the words nearest to them: which words, how far they went, and what the model answers then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError
from promptlab.methods.base import Setting
from promptlab.methods.projecting import projected_backend
from promptlab.methods.soft_prompt import SoftPrompt
from promptlab.types import Role
from tests.contract.test_methods import make_context, make_shots

MOVED = Setting(learning_rate=0.3, steps=15, options={"start": "words", "reparametrisation": "none"})
OPENED = "{{ text }} {{ soft('It was') }} {{ mask }}."


@pytest.mark.parametrize(("kind", "template"), [("bert", OPENED), ("roberta", "{{ text }} It was {{ mask }}.")])
def test_projected_prompts_are_hard_prompts_with_the_nearest_words(
    backends: dict[str, Any], kind: str, template: str
) -> None:
    """The pretrained model's answer to the same ids with the nearest ones put in, by a naive search, under one key."""
    backend = backends[kind]
    context, shots = make_context(backend), make_shots(backend, template)
    with SoftPrompt().fit(shots, MOVED, context) as fitted:
        vectors, tokens = fitted.tensors["vectors"].numpy(), fitted.record.facts["soft_tokens"]
    weight = backend.model.get_input_embeddings().weight.detach().numpy()
    words = [i for i in range(len(backend.tokenizer)) if i not in backend.tokenizer.all_special_ids]
    cosine = [[v @ weight[i] / np.linalg.norm(v) / np.linalg.norm(weight[i]) for i in words] for v in vectors]
    nearest = [words[int(np.argmax(one))] for one in cosine]
    assert nearest == [token["nearest_id"] for token in tokens]
    prompt = shots.prompts[0]
    ids = prompt.input_ids.copy()
    ids[prompt.roles == (Role.SOFT if template == OPENED else Role.LITERAL)] = nearest
    projected, shown = projected_backend(backend, {"facts": {"soft_tokens": tokens}})
    wanted = context.label_words.token_ids
    expected = backend.score([replace(prompt, input_ids=ids)], wanted)
    found = projected.score([prompt], wanted)
    np.testing.assert_allclose(expected.log_probs, found.log_probs, atol=1e-6)
    assert (prompt.key,) == found.keys
    assert [backend.encoder(None).token_text(i) for i in nearest] == shown


def test_drift_is_the_way_over_the_length_of_the_start(backends: dict[str, Any]) -> None:
    """Euclidean norms, token by token, by hand."""
    backend = backends["bert"]
    shots = make_shots(backend, OPENED)
    with SoftPrompt().fit(shots, MOVED, make_context(backend)) as fitted:
        vectors, described = fitted.tensors["vectors"], fitted.record.facts["soft_tokens"]
    ids = shots.prompts[0].input_ids[shots.prompts[0].roles == Role.SOFT]
    start = backend.model.get_input_embeddings().weight.detach()[torch.from_numpy(ids.astype(np.int64))]
    expected = ((vectors - start) ** 2).sum(1).sqrt() / (start**2).sum(1).sqrt()
    assert expected.tolist() == pytest.approx([one["drift"] for one in described])
    assert all(one["drift"] > 0.1 for one in described)


def test_a_record_that_does_not_say_the_words_is_refused(backends: dict[str, Any]) -> None:
    """The remedy is the option that leaves them out."""
    with pytest.raises(ModelError, match=r"does not say which words .* --no-projection"):
        projected_backend(backends["bert"], {"facts": {"soft_tokens": [{"word": "it"}]}})
