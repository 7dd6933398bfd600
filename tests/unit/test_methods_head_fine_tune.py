"""The classifier head: what the model reads, what moves, and how the head starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.encoding import Encoder
from promptlab.methods.base import Setting
from promptlab.methods.head_fine_tune import HeadFineTune, without_mask
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.types import EncodedPrompt, Example, Role
from tests.broken_models import without_lstrip
from tests.contract.test_methods import UNSEEN, make_context, make_shots, prompts_of
from tests.tiny_models import FAMILIES, TOKENIZER_KINDS, TWO_SEGMENTS

BARE = "{{ text }} {{ mask }}"
TEXTS = [
    "a great film",
    "It was bad!",
    "the food (it was good) , again",
    "great",
    "",
    "Größe 3 % über 这部电影",
    '"no"',
]
NO_STEP = Setting(steps=0, options={"dense": False})


def bare(encoder: Encoder, template: str, **fields: str) -> EncodedPrompt:
    """What the model is given in the place of a prompt of the fields and a mask."""
    prompt = encoder.encode([render(compile_template(Template.from_text(template)), Example("0", 0, fields))])[0]
    assert isinstance(prompt, EncodedPrompt)
    found = without_mask(prompt, encoder)
    assert prompt.key == found.key
    assert () == found.mask_positions
    return found


def as_model_reads(tokenizer: Any, kind: str, *texts: str) -> tuple[list[int], list[int]]:
    """Ids and segment ids of the tokenizer itself."""
    whole = tokenizer(*texts, return_token_type_ids=True)
    ids = list(whole["input_ids"])
    return ids, list(whole["token_type_ids"]) if kind in TWO_SEGMENTS else [0] * len(ids)


@pytest.mark.parametrize("kind", sorted({*FAMILIES, *TOKENIZER_KINDS}))
def test_model_reads_what_the_tokenizer_gives(tokenizers: dict[str, Any], kind: str) -> None:
    """Without the mask and the blank before it, the input is `tokenizer(text)` or `tokenizer(a, b)`."""
    tokenizer = tokenizers[kind]
    encoder = Encoder(tokenizer, max_length=64, uses_segment_ids=kind in TWO_SEGMENTS)
    for text in TEXTS:
        for template in (BARE, "{{ text }}{{ mask }}"):
            found = bare(encoder, template, text=text)
            assert as_model_reads(tokenizer, kind, text) == (found.input_ids.tolist(), found.segment_ids.tolist())
        if text:
            pair = bare(encoder, "{{ a }}{{ sep }}{{ b }} {{ mask }}", a=text, b="so it was")
            expected = as_model_reads(tokenizer, kind, text, "so it was")
            assert expected == (pair.input_ids.tolist(), pair.segment_ids.tolist())


def test_blank_before_a_mask_that_leaves_it_alone_goes_too(tiny: dict[str, Any], tmp_path: Any) -> None:
    """Byte-level vocabularies make a token of the blank where the mask token does not take it."""
    from promptlab.backends.mlm import MaskedBackend

    encoder = MaskedBackend(str(without_lstrip(tiny["roberta"], tmp_path / "model")), device="cpu").encoder(None)
    found = bare(encoder, BARE, text="a great film")
    assert list(encoder.tokenizer("a great film")["input_ids"]) == found.input_ids.tolist()
    kept = bare(encoder, "{{ text }}{{ mask }}", text="a great film ")
    assert list(encoder.tokenizer("a great film ")["input_ids"]) == kept.input_ids.tolist()


@pytest.mark.parametrize("has_dense", [False, True])
def test_scores_are_those_of_a_classifier_of_transformers(backends: dict[str, Any], has_dense: bool) -> None:
    """A head on the first token's state, with a dense layer as in RoBERTa's own class."""
    from transformers import RobertaForSequenceClassification

    backend = backends["roberta"]
    context, setting = make_context(backend), Setting(steps=3, options={"dense": has_dense})
    texts = ["a fine film", "the food was bad"]
    with HeadFineTune().fit(make_shots(backend, BARE), setting, context) as fitted:
        model = RobertaForSequenceClassification(backend.model.config).eval()
        tensors = {name: tensor for name, tensor in fitted.tensors.items() if not name.startswith("head.")}
        missing = model.load_state_dict(tensors, strict=False).missing_keys
        assert all(name.startswith("classifier.") for name in missing)
        head = {name.removeprefix("head."): tensor for name, tensor in fitted.tensors.items() if name not in tensors}
        model.classifier.out_proj.load_state_dict({"weight": head["out.weight"], "bias": head["out.bias"]})
        if has_dense:
            model.classifier.dense.load_state_dict({"weight": head["dense.weight"], "bias": head["dense.bias"]})
        else:
            model.classifier.forward = lambda states: model.classifier.out_proj(states[:, 0])
        with torch.no_grad():
            expected = [model(**backend.tokenizer(text, return_tensors="pt")).logits.log_softmax(-1) for text in texts]
        found = fitted.backend.score(prompts_of(backend, texts, BARE), np.arange(2)).log_probs
    assert np.allclose(torch.cat(expected).numpy(), found, atol=1e-5)


def test_head_starts_as_transformers_starts_it(backends: dict[str, Any]) -> None:
    """Normal with the spread of the configuration, biases 0, drawn by the seed alone."""
    backend = backends["bert"]
    shots, setting = make_shots(backend, BARE), replace(NO_STEP, options={"dense": True})
    starts = [HeadFineTune().fit(shots, setting, make_context(backend, seed)).tensors for seed in (0, 0, 1)]
    assert torch.equal(starts[0]["head.dense.weight"], starts[1]["head.dense.weight"])
    assert not torch.equal(starts[0]["head.dense.weight"], starts[2]["head.dense.weight"])
    assert backend.model.config.initializer_range == pytest.approx(float(starts[0]["head.dense.weight"].std()), rel=0.1)
    assert not starts[0]["head.dense.bias"].any()
    assert not starts[0]["head.out.bias"].any()


def test_parameters_are_those_below_the_vocabulary_head_and_the_new_head(backends: dict[str, Any]) -> None:
    """BERT counted by hand: embeddings, two layers, a head of 2 labels; with a dense layer 32 x 32 + 32 more."""
    backend = backends["bert"]
    words, wide, inner = backend.model.config.vocab_size, 32, 64
    embeddings = (words + 64 + 2) * wide + 2 * wide
    layer = 4 * (wide * wide + wide) + 2 * wide + (wide * inner + inner) + (inner * wide + wide) + 2 * wide
    head = 2 * wide + 2
    shots, context = make_shots(backend, BARE), make_context(backend)
    with HeadFineTune().fit(shots, NO_STEP, context) as fitted:
        assert embeddings + 2 * layer + head == fitted.record.num_parameters
    with HeadFineTune().fit(shots, replace(NO_STEP, options={"dense": True}), context) as fitted:
        assert embeddings + 2 * layer + head + wide * wide + wide == fitted.record.num_parameters


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "bert_chinese"])
def test_gradient_reaches_every_tensor(backends: dict[str, Any], gradients: Any, kind: str) -> None:
    """Nothing is trained in name only."""
    shots, setting = make_shots(backends[kind], BARE), replace(NO_STEP, options={"dense": True})
    HeadFineTune().fit(shots, setting, make_context(backends[kind])).detach()
    assert gradients
    assert [] == [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]


def test_words_are_not_asked_for_and_mask_is_not_read(backends: dict[str, Any]) -> None:
    """A context without words will do, and what follows the text of the row in a prompt of fields is nothing."""
    backend = backends["roberta"]
    context = replace(make_context(backend), words=None)
    with HeadFineTune().fit(make_shots(backend, BARE), replace(NO_STEP, steps=2), context) as fitted:
        one, other = (
            fitted.backend.score(prompts_of(backend, UNSEEN, template), np.arange(2)).log_probs
            for template in (BARE, "{{ text }}{{ mask }}")
        )
    assert np.array_equal(one, other)


def test_dropout_acts_in_the_head_too(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model's own rate set to 0 inside, losses with and without dropout differ by the head's alone."""
    backend = backends["bert"]
    for module in backend.model.modules():
        if isinstance(module, torch.nn.Dropout):
            monkeypatch.setattr(module, "p", 0.0)
    monkeypatch.setattr(backend.model.config, "classifier_dropout", 0.5)
    setting = Setting(steps=2, learning_rate=1e-5, options={"dense": False})
    context, shots = make_context(backend), make_shots(backend, BARE)
    losses = []
    for has_dropout in (False, True):
        with HeadFineTune().fit(shots, replace(setting, dropout=has_dropout), context) as fitted:
            losses.append(fitted.record.losses)
    assert losses[0] != losses[1]


def test_products_in_bfloat16_fit_too(backends: dict[str, Any]) -> None:
    """The loss falls under autocast, and scores are made in float32 afterwards."""
    backend = backends["bert"]
    setting = Setting(steps=12, precision="bfloat16", options={"dense": True})
    with HeadFineTune().fit(make_shots(backend, BARE), setting, make_context(backend)) as fitted:
        assert fitted.record.losses[-1] < fitted.record.losses[0]
        assert fitted.backend.score(prompts_of(backend, UNSEEN, BARE), np.arange(2)).log_probs.dtype == np.float32


def test_truncated_prompt_says_so(backends: dict[str, Any]) -> None:
    """What was cut of a row is still counted, and only text of the row and the frame are left."""
    encoder = backends["bert"].encoder(8)
    found = bare(encoder, BARE, text="a great film and a terrible play and a good book")
    assert found.num_truncated > 0
    assert {int(Role.SPECIAL), int(Role.FIELD)} == set(found.roles.tolist())
    assert 7 == len(found)
