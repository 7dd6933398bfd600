"""Traps 12 to 16, 26 and 27: what reaches the model, and which of its numbers are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.backends.replaced_token import ReplacedTokenBackend
from promptlab.errors import ModelError, TemplateError
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.types import EncodedPrompt, Example, Prompt
from tests.oracles import MASK, field, mask_log_probs, prompt
from tests.tiny_models import ABSOLUTE, FAMILIES, build_discriminator

TOLERANCE = 1e-5
ASKED = (
    prompt(field("good"), " It was ", MASK, "."),
    prompt(field("great, good and no, yes, bad"), " it was ", MASK, ", it was great"),
    prompt(MASK, " it was ", field("no")),
)


def encoded(backend: MaskedBackend, asked: tuple[Prompt, ...] = ASKED) -> list[EncodedPrompt]:
    """Encoded prompts, all of them scorable."""
    return [one for one in backend.encoder(None).encode(list(asked)) if isinstance(one, EncodedPrompt)]


def ours(backend: MaskedBackend) -> np.ndarray[Any, Any]:
    """Log-probabilities of the whole vocabulary, a row a prompt, from one batch."""
    found: np.ndarray[Any, Any] = backend.score(encoded(backend), np.arange(len(backend.tokenizer))).log_probs
    return found


def oracle(model: Any, tokenizer: Any) -> np.ndarray[Any, Any]:
    """The same, from one plain forward a prompt."""
    return np.concatenate([mask_log_probs(model, tokenizer, one) for one in ASKED])


def naive(
    backend: MaskedBackend, model: Any, *, side: str = "right", attention: str = "tokenizer", positions: str = "none"
) -> np.ndarray[Any, Any]:
    """A batch padded by hand."""
    import torch

    prompts, pad = encoded(backend), backend.tokenizer.pad_token_id
    width = max(len(one) for one in prompts)
    pads = [[pad] * (width - len(one)) for one in prompts]
    rows = [one.input_ids.tolist() for one in prompts]
    ids = torch.tensor([p + r if side == "left" else r + p for r, p in zip(rows, pads, strict=True)])
    real = [[0] * len(p) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(p)
            for r, p in zip(rows, pads, strict=True)]  # fmt: skip
    inputs: dict[str, Any] = {"input_ids": ids}
    if attention != "none":
        inputs["attention_mask"] = torch.tensor(real) if attention == "tokenizer" else (ids > 0).long()
    if positions == "from the first token":
        inputs["position_ids"] = (torch.tensor(real).cumsum(1) - 1).clamp(min=0)
    if positions == "embeddings":
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    with torch.inference_mode():
        logits = model(**inputs).logits
    places = [one.mask_positions[0] + (len(p) if side == "left" else 0) for one, p in zip(prompts, pads, strict=True)]
    found: np.ndarray[Any, Any] = torch.log_softmax(logits[range(len(rows)), places], dim=-1).numpy()
    return found


def differs(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return bool(np.abs(one - other).max() > 1e-3)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_12_a_head_that_was_never_loaded(
    models: dict[str, Any], tokenizers: Any, kind: str, tmp_path: Path
) -> None:
    """A body without its head loads with a new random one, other numbers each time; it is refused in one sentence."""
    import torch
    from transformers import AutoModelForMaskedLM

    models[kind].base_model.save_pretrained(tmp_path)
    tokenizers[kind].save_pretrained(tmp_path)
    noise = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
        with torch.inference_mode():
            noise.append(model(input_ids=torch.tensor([[2, 5, 6, 3]])).logits.numpy())
    assert differs(*noise)
    with pytest.raises(
        ModelError, match=r"\(\w+\) has no trained weights for \d+ tensors of \w+ForMaskedLM \(.*\): its "
    ):
        MaskedBackend(str(tmp_path), device="cpu").facts()


def test_trap_12_a_discriminator_predicts_no_words(tmp_path: Path) -> None:
    """An ELECTRA discriminator is named as one, and the message says what to use."""
    backend = MaskedBackend(str(build_discriminator(tmp_path)), device="cpu")
    with pytest.raises(ModelError) as caught:
        backend.facts()
    assert f"model '{tmp_path}' (ElectraForPreTraining) has no trained weights for " in str(caught.value)
    assert str(caught.value).endswith(
        "It is an ELECTRA discriminator, which predicts no words: use the generator, or --scoring replaced_token."
    )


def test_trap_12_deberta_v3_predicts_no_words(detectors: dict[str, Path]) -> None:
    """Its leftover head of words is not taken for one that was trained; the message names the other way to ask."""
    folder = detectors["deberta_v3"]
    with pytest.raises(ModelError) as caught:
        MaskedBackend(str(folder), device="cpu").facts()
    assert f"model '{folder}' (deberta-v2) has no trained weights for " in str(caught.value)
    assert str(caught.value).endswith(
        "It is a replaced-token detector, as DeBERTa-v3 is, which predicts no words: use --scoring replaced_token."
    )


def test_trap_12_a_masked_model_is_no_detector(tiny: dict[str, Path]) -> None:
    """A generator, a masked DeBERTa and another family are each refused as detectors, with what to do."""
    said = {}
    for kind in ("electra", "deberta_v2", "bert"):
        with pytest.raises(ModelError) as caught:
            ReplacedTokenBackend(str(tiny[kind]), device="cpu").facts()
        said[kind] = str(caught.value)
    assert f"model '{tiny['electra']}' (ElectraForMaskedLM) has no trained weights for 4 tensors of " in said["electra"]
    assert said["electra"].endswith(
        "It is an ELECTRA generator, a masked language model: use the discriminator, or leave --scoring out."
    )
    assert " has no trained weights for 6 tensors of DebertaDetector (mask_predictions." in said["deberta_v2"]
    assert said["deberta_v2"].endswith("It is a masked language model: leave --scoring out.")
    assert said["bert"] == (
        f"model '{tiny['bert']}' is of type 'bert', which has no replaced-token detector here: use an ELECTRA "
        "discriminator or a DeBERTa-v3, or leave --scoring out to score a masked language model."
    )


def test_trap_12_the_head_of_deberta_has_two_names(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A DeBERTa head under its newer names is not passed over, and the message says how it is read."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    config = AutoConfig.from_pretrained(tiny["deberta_v2"], legacy=False)
    AutoTokenizer.from_pretrained(tiny["deberta_v2"]).save_pretrained(tmp_path)
    model = AutoModelForMaskedLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    read = MaskedBackend(str(tmp_path), device="cpu")
    np.testing.assert_allclose(ours(read), oracle(model, read.tokenizer), atol=TOLERANCE)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"legacy": false', '"legacy": true'))
    with pytest.raises(ModelError, match=r'newer names: write "legacy": false into its config\.json'):
        MaskedBackend(str(tmp_path), device="cpu").facts()


@pytest.mark.parametrize("attention", ["ids above 0", "none"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_13_attention_to_padding(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str, attention: str
) -> None:
    """`ids > 0` hides <s> and attends to <pad> where <s> is 0, no mask attends to it everywhere; ours is the one's."""
    tokenizer = backends[kind].tokenizer
    plain = oracle(models[kind], tokenizer)
    assert (attention == "none" or tokenizer.pad_token_id != 0) == differs(
        naive(backends[kind], models[kind], attention=attention), plain
    )
    np.testing.assert_allclose(ours(backends[kind]), plain, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_14_positions_move_with_padding_on_the_left(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left padding moves absolute positions, and RoBERTa's where embeddings are given; we pad on the right.

    Whatever the tokenizer says: one that pads on the left changes nothing.
    """
    backend, model = backends[kind], models[kind]
    plain = oracle(model, backend.tokenizer)
    assert (kind in ABSOLUTE) == differs(naive(backend, model, side="left"), plain)
    is_moved = kind in (*ABSOLUTE, "roberta", "xlm_roberta")
    assert is_moved == differs(naive(backend, model, side="left", positions="embeddings"), plain)
    assert not differs(naive(backend, model), plain)
    if kind in ABSOLUTE:
        assert not differs(naive(backend, model, side="left", positions="from the first token"), plain)
    monkeypatch.setattr(backend.tokenizer, "padding_side", "left")
    np.testing.assert_allclose(ours(backend), plain, atol=TOLERANCE, rtol=0)


def rendered(template: str, text: str) -> Prompt:
    """The prompt of one text."""
    return render(compile_template(Template.from_text(template)), Example("0", 0, {"text": text}))


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_15_trainable_tokens_move_the_mask(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str
) -> None:
    """An index from before the trainable tokens were put in reads another position; the mask is found behind them."""
    backend = backends[kind]
    hard = prompt("it was ", field("good"), ", it was ", MASK, ".")
    template = "{{ soft('it was') }} {{ text }}, {{ soft('it was') }} {{ mask }}."
    (one,) = encoded(backend, (rendered(template, "good"),))
    (without,) = encoded(backend, (prompt(field("good"), ", ", MASK, "."),))
    plain = mask_log_probs(models[kind], backend.tokenizer, hard)[0]
    found = backend.score([one], np.arange(len(backend.tokenizer))).log_probs[0]
    assert backend.tokenizer.mask_token_id != one.input_ids[without.mask_positions[0]]
    np.testing.assert_allclose(found, plain, atol=TOLERANCE, rtol=0)


def test_trap_16_nothing_is_scored_with_tokens_that_were_not_fitted(backends: dict[str, MaskedBackend]) -> None:
    """Random trainable tokens decide nothing for a reason; a template that has them is refused until it is fitted."""
    import torch

    vectors = backends["bert"]._model.get_input_embeddings()(torch.tensor([[2, 5, 4, 3]]))
    noise = []
    for seed in (0, 1):  # another seed, another score: nothing of the template is in it
        torch.manual_seed(seed)
        inputs = torch.cat([vectors[:, :2], torch.randn(1, 5, vectors.shape[-1]), vectors[:, 2:]], dim=1)
        with torch.inference_mode():
            noise.append(backends["bert"]._model(inputs_embeds=inputs).logits[0, -2].numpy())
    assert differs(*noise)
    with pytest.raises(TemplateError, match=r"soft\(5\) starts from random vectors and needs a fit"):
        rendered("{{ text }} {{ soft(5) }} {{ mask }}", "good")


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_26_a_softmax_in_bfloat16(tiny: dict[str, Path], kind: str) -> None:
    """Probabilities of a softmax in the dtype of the weights do not sum to 1; ours are float32 and do."""
    import torch
    from transformers import AutoModelForMaskedLM

    backend = MaskedBackend(str(tiny[kind]), device="cpu", dtype="bfloat16")
    model = AutoModelForMaskedLM.from_pretrained(tiny[kind], dtype=torch.bfloat16).eval()
    (one, *_) = encoded(backend)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(one.input_ids[None].astype(np.int64))).logits[0, one.mask_positions[0]]
    rough = torch.log_softmax(logits, dim=-1).float().numpy()
    exact = torch.log_softmax(logits.float(), dim=-1).numpy()
    found = backend.score([one], np.arange(len(backend.tokenizer))).log_probs[0]
    assert differs(rough, exact)
    assert np.float32 == found.dtype
    assert 1 == pytest.approx(float(np.exp(found.astype(np.float64)).sum()), abs=1e-5)
    np.testing.assert_allclose(found, exact, atol=0.25, rtol=0)  # kernels of bfloat16 differ with the number of rows


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_27_logits_at_every_position(backends: dict[str, MaskedBackend], kind: str) -> None:
    """The plain forward applies the vocabulary head to every position; ours to as many rows as there are masks."""
    import torch

    backend, rows = backends[kind], list[int]()
    ours(backend)  # loads the weights
    model = backend._model
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: rows.append(output.shape[:-1].numel()))
    prompts = encoded(backend)
    width = max(len(one) for one in prompts)
    try:
        with torch.inference_mode():
            model(input_ids=torch.ones((len(prompts), width), dtype=torch.long))
        ours(backend)
    finally:
        handle.remove()
    assert [len(prompts) * width, len(prompts)] == rows
