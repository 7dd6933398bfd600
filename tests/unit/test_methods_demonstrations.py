"""Shots inside the prompt: what is averaged, what is counted, what is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from promptlab.errors import ModelError
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.methods.base import Context, LabelledPrompts, Setting, Words
from promptlab.methods.choosing import Chooser, Showing
from promptlab.methods.demonstrations import Demonstrations
from promptlab.methods.features import last_states
from promptlab.methods.shot_tensors import shots_to_tensors, tensors_to_shots
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import Example
from tests.contract.test_methods import LABELS, TEXTS, UNSEEN, make_context, make_shots, prompts_of

SHOWN = [(text, label) for label in LABELS for text in TEXTS[label]]


@pytest.mark.parametrize("choice", ["sampled", "nearest"])
def test_answers_are_the_mean_over_written_out_texts(backends: dict[str, Any], models: Any, choice: str) -> None:
    """For BERT: each draw as one text, tokenised and scored by transformers, label probabilities averaged."""
    backend, model = backends["bert"], models["bert"]
    tokenizer, context, shots = backend.tokenizer, make_context(backend), make_shots(backend)
    setting = Setting(options={"choice": choice})
    unseen = prompts_of(backend, UNSEEN)
    fitted = Demonstrations().fit(shots, setting, context)
    found = fitted.backend.score(unseen, np.arange(2)).log_probs
    states, of_rows = (last_states(backend, prompts, "mean") for prompts in (shots.prompts, unseen))
    chooser = Chooser(shots, Showing(choice=choice), 2, context.seed, states if choice == "nearest" else None)
    for text, prompt, state, answer in zip(UNSEEN, unseen, of_rows, found, strict=True):
        probabilities = []
        for draw in chooser.draws(prompt, state):
            parts = [f"{text} It was [MASK]."] + [f"{SHOWN[shot][0]} It was {SHOWN[shot][1]}." for shot in draw]
            inputs = tokenizer(" [SEP] ".join(parts), return_tensors="pt", return_token_type_ids=True)
            inputs["token_type_ids"][0, len(prompt) :] = 1
            with torch.no_grad():
                logits = model(**inputs).logits[0, prompt.mask_positions[0]].numpy()
            probabilities.append(softmax(logits[context.label_words.token_ids]))
        assert np.allclose(np.log(np.mean(probabilities, axis=0)), answer, atol=2e-5)
    assert {"sampled": 4, "nearest": 2}[choice] == len(probabilities)


def test_nothing_is_trained(backends: dict[str, Any]) -> None:
    """No parameters, no steps; the shots run through the model where they are compared with rows, and only then."""
    shots, context = make_shots(backends["bert"]), make_context(backends["bert"])
    records = [Demonstrations().fit(shots, setting, context).record for setting in Demonstrations().grid()[:2]]
    assert [0, 0] == [record.num_parameters for record in records]
    assert ["sampled", "nearest"] == [setting.options["choice"] for setting in Demonstrations().grid()[:2]]
    assert [0, 8] == [record.example_passes for record in records]


def test_label_shows_its_word_of_the_largest_weight(backends: dict[str, Any], monkeypatch: Any) -> None:
    """The first of equals."""
    backend = backends["bert"]
    words = {"bad": {"terrible": 1.0, "bad": 1.0}, "good": {"great": 1.0, "good": 2.0}}
    verbalizer = Verbalizer.from_labels(words)
    prompt = render(
        compile_template(Template.from_text("{{ text }} It was {{ mask }}.")), Example("0", 0, {"text": ""})
    )
    found = find_word_ids(backend.encoder(None), verbalizer.words, [slot_contexts(prompt)])
    context = Context(backend, LABELS, Words.of(verbalizer, LABELS, found), seed=0)
    unseen = prompts_of(backend, UNSEEN[:1])
    seen, score = list[str](), backend.score

    def spy(prompts: Any, ids: Any) -> Any:
        seen.extend(backend.tokenizer.decode(prompt.input_ids) for prompt in prompts)
        return score(prompts, ids)

    monkeypatch.setattr(backend, "score", spy)
    Demonstrations().fit(make_shots(backend), Setting(), context).backend.score(unseen, np.arange(2))
    assert 4 == len(seen)
    assert all("it was terrible. [SEP]" in text and "it was good. [SEP]" in text for text in seen)


def test_what_does_not_fit_is_counted_once(backends: dict[str, Any]) -> None:
    """Scored twice, a row counts once; rows that fit count nothing."""
    backend, context = backends["bert"], make_context(backends["bert"])
    fitted = Demonstrations().fit(make_shots(backend), Setting(options={"num_samples": 2}), context)
    fitted.backend.score(prompts_of(backend, UNSEEN), np.arange(2))
    counted = ("prompts_with_cut_demonstrations", "demonstration_tokens_cut", "demonstrations_left_out")
    assert (0, 0, 0) == tuple(fitted.backend.facts()[name] for name in counted)
    long = prompts_of(backend, ["good " * 46, "good " * 52, "good " * 57])
    for _ in range(2):
        found = fitted.backend.score(long, np.arange(2)).log_probs
    assert np.isfinite(found).all()
    facts = fitted.backend.facts()
    # Of 64 tokens the rows take 52, 58 and 63, and a shot without its text 5: two fit, one fits, none fits.
    assert 2 * 1 + 2 * 2 == facts["demonstrations_left_out"]
    assert 4 == facts["prompts_with_cut_demonstrations"]
    assert backend.facts()["architecture"] == facts["architecture"]


def test_row_beside_which_nothing_fits_is_scored_without(backends: dict[str, Any]) -> None:
    """Its answer is the zero-shot one."""
    backend, context = backends["bert"], make_context(backends["bert"])
    long = prompts_of(backend, ["good " * 57])
    log_probs = backend.score(long, context.label_words.token_ids).log_probs.astype(np.float64)
    expected = np.log(softmax(context.label_words.scores(log_probs), axis=1))
    fitted = Demonstrations().fit(make_shots(backend), Setting(), context)
    assert np.allclose(expected, fitted.backend.score(long, np.arange(2)).log_probs, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_shots_come_back_from_their_tensors(backends: dict[str, Any], kind: str) -> None:
    """Prompts of unlike lengths, with segment ids, roles, masks and keys; RoBERTa's first token has the id 0."""
    shots = make_shots(backends[kind], "{{ text }}{{ sep }}It was {{ mask }}.")
    found = tensors_to_shots(shots_to_tensors(shots), more={})
    assert shots.labels.tolist() == found.labels.tolist()
    for one, other in zip(shots.prompts, found.prompts, strict=True):
        assert (one.key, one.mask_positions) == (other.key, other.mask_positions)
        assert one.segment_ids.tolist() == other.segment_ids.tolist()


def test_tensors_that_are_no_shots_are_refused(backends: dict[str, Any]) -> None:
    """States are wanted for the nearest, and not otherwise."""
    shots, context = make_shots(backends["bert"]), make_context(backends["bert"])
    sampled, nearest = Setting(options={"choice": "sampled"}), Setting(options={"choice": "nearest"})
    tensors = Demonstrations().fit(shots, sampled, context).tensors
    with pytest.raises(ModelError, match=r"'states' has the shape None and should have \(8, 32\)"):
        Demonstrations().load(tensors, nearest, context)
    few = {**tensors, "labels": tensors["labels"][:7]}
    with pytest.raises(ModelError, match=r"'input_ids' has the shape \(8, \d+\) and should have \(7, \d+\)"):
        Demonstrations().load(few, sampled, context)


def test_one_shot_a_label_is_enough(backends: dict[str, Any]) -> None:
    """And a shot is scored by the others alone."""
    backend, shots = backends["bert"], make_shots(backends["bert"])
    few = LabelledPrompts((shots.prompts[0], shots.prompts[4]), np.array([0, 1]))
    for setting in Demonstrations().grid():
        fitted = Demonstrations().fit(few, setting, make_context(backend))
        assert np.isfinite(fitted.backend.score(few.prompts, np.arange(2)).log_probs).all()
