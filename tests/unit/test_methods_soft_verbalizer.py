"""Label vectors at the mask: their start, their gradient and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import ModelError
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.methods.base import Context, Setting, Words
from promptlab.methods.soft_verbalizer import SoftVerbalizer
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import Example
from tests.contract.test_methods import LABELS, UNSEEN, make_context, make_shots, prompts_of
from tests.tiny_models import FAMILIES

UNFITTED = Setting(steps=0)
KINDS = [kind for kind in FAMILIES if kind != "bert_chinese"]


def naive_states(model: Any, prompts: Any) -> np.ndarray:
    """What the decoder of a model of transformers is given at the masks, one prompt at a time."""
    kept: list[Any] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    with torch.no_grad():
        for prompt in prompts:
            model(input_ids=torch.from_numpy(prompt.input_ids.astype(np.int64))[None])
    handle.remove()
    return np.stack([states[0, prompt.mask_positions[0]].numpy() for states, prompt in zip(kept, prompts, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_unfitted_vectors_score_as_the_label_words(backends: dict[str, Any], kind: str) -> None:
    """Log-softmax over labels is the zero-shot log-probability of the labels, for words of one token."""
    backend = backends[kind]
    context, unseen = make_context(backend), prompts_of(backend, UNSEEN)
    log_probs = backend.score(unseen, context.label_words.token_ids).log_probs.astype(np.float64)
    expected = log_softmax(context.label_words.scores(log_probs), axis=1)
    with SoftVerbalizer().fit(make_shots(backend), UNFITTED, context) as fitted:
        assert np.allclose(expected, fitted.backend.score(unseen, np.arange(2)).log_probs, atol=1e-5)


def test_several_words_start_as_their_weighted_mean(tiny: dict[str, Any]) -> None:
    """As the verbalizer pools log-probabilities; the order of its labels is not the order of the task's."""
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    bias = backend.model.get_output_embeddings().bias
    bias.data.copy_(torch.linspace(-1, 1, len(bias)))  # a new model's are all 0
    words = {"good": {"good": 3.0, "great": 1.0}, "bad": {"bad": 1.0, "terrible": 1.0}}
    verbalizer = Verbalizer.from_labels(words)
    prompt = render(
        compile_template(Template.from_text("{{ text }} It was {{ mask }}.")), Example("0", 0, {"text": ""})
    )
    found = find_word_ids(backend.encoder(None), verbalizer.words, [slot_contexts(prompt)])
    context = Context(backend, LABELS, Words.of(verbalizer, LABELS, found), seed=0)
    rows, biases = backend.decoder_rows(context.label_words.token_ids)
    unseen = prompts_of(backend, UNSEEN)
    with SoftVerbalizer().fit(make_shots(backend), UNFITTED, context) as fitted:
        assert np.allclose((rows[2] + rows[3]) / 2, fitted.tensors["vectors"][0], atol=1e-6)
        assert np.allclose((3 * rows[0] + rows[1]) / 4, fitted.tensors["vectors"][1], atol=1e-6)
        assert (3 * biases[0] + biases[1]) / 4 == pytest.approx(float(fitted.tensors["biases"][1]), abs=1e-6)
        log_probs = backend.score(unseen, context.label_words.token_ids).log_probs.astype(np.float64)
        expected = log_softmax(context.label_words.scores(log_probs), axis=1)
        assert np.allclose(expected, fitted.backend.score(unseen, np.arange(2)).log_probs, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_gradient_is_that_of_finite_differences(
    backends: dict[str, Any], models: dict[str, Any], gradients: dict[str, Any], kind: str
) -> None:
    """Of a loss in float64 over states that transformers gives."""
    backend, shots = backends[kind], make_shots(backends[kind])
    states = naive_states(models[kind], shots.prompts).astype(np.float64)
    with SoftVerbalizer().fit(shots, UNFITTED, make_context(backend)) as fitted:
        start = {name: tensor.double().numpy() for name, tensor in fitted.tensors.items()}

    def loss(vectors: np.ndarray, biases: np.ndarray) -> float:
        return -float(log_softmax(states @ vectors.T + biases, axis=1)[np.arange(8), shots.labels].mean())

    for name, place in (("vectors", (0, 0)), ("vectors", (1, 5)), ("biases", (1,))):
        ends = []
        for step in (1e-5, -1e-5):
            moved = {one: array.copy() for one, array in start.items()}
            moved[name][place] += step
            ends.append(loss(**moved))
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(gradients[name][place]), abs=1e-5, rel=1e-3)


def test_gradient_reaches_vectors_and_biases(backends: dict[str, Any], gradients: dict[str, Any]) -> None:
    """Both move, and they are all that moves: 2 labels of 32 numbers and a bias."""
    shots, context = make_shots(backends["bert"]), make_context(backends["bert"])
    with SoftVerbalizer().fit(shots, replace(UNFITTED, steps=1), context) as fitted:
        assert ["biases", "vectors"] == sorted(fitted.tensors)
        assert all(gradient.any() for gradient in gradients.values())
        assert 2 * 32 + 2 == fitted.record.num_parameters


def test_model_runs_once_over_the_shots(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps cost no forward pass, and the record says so."""
    backend, sizes, score = backends["bert"], list[int](), backends["bert"].score
    shots, context = make_shots(backend), make_context(backend)
    monkeypatch.setattr(
        backend, "score", lambda prompts, ids, **more: sizes.append(len(prompts)) or score(prompts, ids, **more)
    )
    with SoftVerbalizer().fit(shots, replace(UNFITTED, steps=30), context) as fitted:
        assert [8] == sizes
        assert (8, 30) == (fitted.record.example_passes, fitted.record.steps)


def test_head_without_a_plain_decoder_is_refused(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that says what to take instead."""
    backend = backends["bert"]
    shots, context = make_shots(backend), make_context(backend)
    monkeypatch.setitem(backend.__dict__, "_decoder", None)
    expected = (
        "the head of BertForMaskedLM is no plain product with the states at masks, so label vectors cannot start from "
        "its words: choose linear_probe or prototypical."
    )
    with pytest.raises(ModelError) as refused:
        SoftVerbalizer().fit(shots, UNFITTED, context)
    assert expected == str(refused.value)


def test_products_in_bfloat16_fit_too(backends: dict[str, Any]) -> None:
    """The loss falls under autocast."""
    setting = Setting(steps=12, precision="bfloat16", learning_rate=1e-2)
    with SoftVerbalizer().fit(make_shots(backends["bert"]), setting, make_context(backends["bert"])) as fitted:
        assert fitted.record.losses[-1] < fitted.record.losses[0]
        assert torch.float32 == fitted.tensors["vectors"].dtype
